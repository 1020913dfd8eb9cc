"""From ids to weights: data, the loop, LoRA, and the doctor who watches. PyTorch lives here and nowhere else.

It never prints and knows nothing of the engine: what it makes is a folder that anyone can load.
"""
