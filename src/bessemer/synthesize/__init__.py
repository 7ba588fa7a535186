"""Data that the flow makes itself: questions and answers from documents, fabrications, preference pairs."""
