"""What a snapshot must look like before anything is learned from it."""
