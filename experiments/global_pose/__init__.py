"""Does the joint pose solver find the global minimum?"""
