"""Bessemer trains a language model from end to end, from one recipe.

The command line is `bessemer`. From Python: `bessemer.recipe.load_recipe` reads a recipe,
`bessemer.runner.run.run_recipe` runs it, and `bessemer.model.load_model` opens what it made.
"""
