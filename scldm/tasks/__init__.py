"""What is done to given cells with a trained model; one file for each task."""
