"""What is compared: shape errors, edits and their reach, rivals fitted to masks, and checks of the evaluator itself."""
