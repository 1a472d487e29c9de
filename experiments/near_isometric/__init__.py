"""How good maps between poses of one body are: FAUST and TOSCA, whole and damaged."""
