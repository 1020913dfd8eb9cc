"""From texts and conversations to rows of tokens: read, cleaned, split, encoded once, shown and ordered.

    sources -> cleaning -> duplicates -> split, leaks -> prepare       text
    sources -> conversations -> rendering -> packing -> prepare_chat   chat and preferences
    dataset, order, preview                                            what a run reads

Plain numpy: data can be prepared and looked at without PyTorch.
"""
