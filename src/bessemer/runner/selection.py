"""Which stages of a recipe a command works on: `--from` and `--until`."""

from dataclasses import dataclass

from bessemer.errors import ConfigError
from bessemer.recipe import Recipe, StagePlan, nearest


@dataclass(frozen=True)
class Selection:
    """`from_stage` is redone with everything after it; nothing after `until` is looked at."""

    from_stage: str | None = None
    until: str | None = None

    def check(self, recipe: Recipe) -> None:
        """Raises ConfigError when a name is not in the recipe, or they are in the wrong order."""
        names = [plan.name for plan in recipe.stages]
        for option, name in (("--from", self.from_stage), ("--until", self.until)):
            if name is not None and name not in names:
                raise ConfigError(f"{option} {name}: no stage is called {name!r}{nearest(name, names)}")
        if self.from_stage and self.until and names.index(self.until) < names.index(self.from_stage):
            raise ConfigError(f"--until {self.until} comes before --from {self.from_stage}")

    def stages(self, recipe: Recipe) -> tuple[StagePlan, ...]:
        """The stages to bring up to date, in recipe order."""
        if self.until is None:
            return recipe.stages
        names = [plan.name for plan in recipe.stages]
        return recipe.stages[: names.index(self.until) + 1]

    def discarded(self, recipe: Recipe) -> tuple[str, ...]:
        """Names of the stages whose artifacts `--from` throws away: also those after `until`."""
        names = tuple(plan.name for plan in recipe.stages)
        return names[names.index(self.from_stage) :] if self.from_stage else ()
