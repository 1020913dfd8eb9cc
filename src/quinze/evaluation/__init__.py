"""Numbers about anything that can be called: how well it predicts, chooses and knows its own doubts."""
