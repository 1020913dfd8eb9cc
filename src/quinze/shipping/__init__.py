"""From a trained model to files that are served, with proof that they are the same model."""
