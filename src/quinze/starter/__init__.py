"""Models that Quinze itself made, by recipes/starter. Each folder has a card with its numbers."""
