"""Defaults of this room in their one home: the settings of the service, and so every face, take them here."""

from __future__ import annotations

SEARCH_RESULTS = 8
"""Passages that a search returns, and that an answer reads."""
EMBEDDER = "starter"
"""What turns passages into vectors in a new knowledge base."""
