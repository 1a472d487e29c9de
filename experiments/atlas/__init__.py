"""Maps between all animals of the zoo, against their exact ground truth."""
