"""The review page: a curated artifact to look through, as one HTML file that loads nothing."""

from bessemer.curate.review.write import write_review

__all__ = ["write_review"]
