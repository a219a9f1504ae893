"""What the trainers' command lines share."""
