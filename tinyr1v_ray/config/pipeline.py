"""The settings of `tinyr1v run`: the whole recipe, from a base model to a report."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeInt, model_validator

from tinyr1v_ray.config.base import Settings, Share
from tinyr1v_ray.config.cluster import ClusterSettings
from tinyr1v_ray.config.folders import Folder
from tinyr1v_ray.config.merge import JobConfig, MethodConfig, OverlapCase
from tinyr1v_ray.config.telemetry import Port

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$", max_length=40)]


class TrainingSettings(Settings):
    """One training, as far as it differs from what all trainings of the recipe share."""

    start_from: str = ""
    """Training that this one goes on from (sequential training); empty: the recipe's base."""
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = None
    """Only with these of the recipe's seeds; not set: with all."""
    domains: tuple[str, ...] = ()
    """What the report says it is trained on; empty: the miniature's domains among its sources, else data.domain."""
    evaluated: bool = True
    """Whether the model is evaluated, and so stands in the report."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of `tinyr1v train`, put over the recipe's `train`."""
    evaluate: dict[str, Any] = Field(default_factory=dict)
    """Settings of `tinyr1v evaluate` for this model, put over the recipe's `evaluate`."""


class StudySettings(Settings):
    """Methods to compare, and by which rule; both stand here before anything runs."""

    reference: str = ""
    """Method that the others are compared with; empty: there is no study."""
    methods: dict[Name, Annotated[tuple[Name, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Name of a method -> its trainings, one a domain."""
    margin: Share = 0.01
    """Loss of accuracy that must be ruled out in every domain for a method to be called level with the reference."""

    @model_validator(mode="after")
    def _reference_is_a_method(self) -> Self:
        if self.reference not in self.methods and (self.reference or self.methods):
            known = ", ".join(self.methods) or "none"
            raise ValueError(f"reference is {self.reference!r}; it is one of the methods ({known}); name one of them")
        return self


class MergingSettings(Settings):
    """Which specialists are merged, and in which ways."""

    experts: tuple[str, ...] = ()
    """Trainings whose models are merged; empty: none are, but for the dial's."""
    methods: dict[Name, MethodConfig] = Field(default_factory=dict)
    """Name of a merged model -> how it is made."""
    job: JobConfig = JobConfig()


class DialCaseSettings(OverlapCase):
    """A row of the dial: which experts, and how they are made."""

    experts: tuple[str, ...] = ()
    """Trainings on one domain each; empty: the dial's."""
    planted: bool = True
    """Whether overlap is planted; else the experts are merged as they were trained, and the row has one point."""


class DialSettings(Settings):
    """How much of each expert's accuracy its merges keep, with overlap planted or as trained; the miniature alone."""

    experts: tuple[str, ...] = ()
    """Trainings on one domain each, which are merged, or made experts of; empty: the dial is not turned."""
    shared: str = ""
    """Training on all of their domains, whose task vector gives the direction that planted experts share."""
    overlaps: Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], Field(min_length=1)] = (0, 0.2, 0.4, 0.6, 0.8)
    """Cosines of the experts."""
    cases: dict[Name, DialCaseSettings] = Field(default_factory=dict)
    """Name of a row of the dial -> how its experts are made; empty: one row, `plain`, of all experts."""
    num_items: int = Field(default=300, ge=1)
    """Held-out items of each domain."""

    @property
    def named_cases(self) -> dict[str, DialCaseSettings]:
        """Name of a row -> how its experts are made, which they are included."""
        cases = dict(self.cases) or {"plain": DialCaseSettings()}
        return {
            name: case if case.experts else case.model_copy(update={"experts": self.experts})
            for name, case in cases.items()
        }

    @property
    def trainings(self) -> list[str]:
        """All that it reads."""
        named = [name for case in self.named_cases.values() for name in case.experts] if self.experts else []
        return list(dict.fromkeys([*self.experts, *named, *filter(None, [self.shared])]))


class DialPointSettings(Settings):
    """One point of the dial, resolved; `experts` and `domains` run in parallel."""

    base: Folder
    experts: tuple[Folder, ...]
    domains: tuple[str, ...]
    shared: Folder
    overlap: float
    case_name: str
    case: DialCaseSettings
    methods: dict[Name, MethodConfig]
    num_items: int
    seed: int
    job: JobConfig


class PipelineConfig(Settings):
    """Base -> trainings -> merges -> evaluation of all -> report, for every seed."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    """Name of the recipe's folder."""
    folder: Folder = "runs"
    """Folder that holds the recipe's folder; shared by all nodes."""
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0,)
    """Everything is done once for each; the report's intervals are over seeds and items."""
    base: Folder = "miniature"
    """Folder or hub name of the base, or `miniature`."""
    train: dict[str, Any] = Field(default_factory=dict)
    """Settings of `tinyr1v train` that all trainings share; base, seed and folder are the recipe's."""
    trainings: Annotated[dict[Name, TrainingSettings], Field(min_length=1)]
    """Name of a model -> how its training differs."""
    merge: MergingSettings = MergingSettings()
    dial: DialSettings = DialSettings()
    evaluate: dict[str, Any] = Field(default_factory=dict)
    """Settings of `tinyr1v evaluate`, for every model; model, output and seed are the recipe's."""
    study: StudySettings = StudySettings()
    cluster: ClusterSettings = ClusterSettings()
    progress: bool = True
    """Show live progress."""
    page_port: Port = 0
    """Port of 127.0.0.1 on which the driver serves a page that shows the training that is under way; 0: none."""

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        named = [(f"trainings.{name}.start_from", training.start_from) for name, training in self.trainings.items()]
        named += [("merge.experts", expert) for expert in self.merge.experts]
        named += [(f"study.methods.{name}", one) for name, each in self.study.methods.items() for one in each]
        named += [("dial", name) for name in self.dial.trainings]
        for key, name in named:
            if name and name not in self.trainings:
                raise ValueError(
                    f"{key} names {name!r}; it is one of trainings ({', '.join(self.trainings)}); correct it"
                )
        for expert in (*self.merge.experts, *self.dial.trainings):
            if self.trainings[expert].seeds is not None:
                raise ValueError(f"{expert!r} is merged, and not trained with every seed; unset its seeds")
        if bool(self.merge.experts or self.dial.experts) != bool(self.merge.methods):
            raise ValueError("merge has experts or methods alone; a merge needs both; set both or none")
        trained, merged = self.trainings.keys(), self.merge.methods.keys()
        clash = sorted(({"base"} & trained) | ({"base", *trained} & merged))
        if clash:
            raise ValueError(f"{clash[0]!r} names two models; a name means one model in the report; rename one")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} has one twice; each is done once; remove it")
        self._check_sequences()
        self._check_dial()
        return self

    def _check_dial(self) -> None:
        dial = self.dial
        if dial.cases and not dial.experts:
            raise ValueError("dial has cases and no experts; it is turned with experts; set dial.experts")
        if not dial.experts:
            return
        for name, case in dial.named_cases.items():
            if len(case.experts) < 2:
                raise ValueError(f"dial.cases.{name} has one expert; a merge needs two; name more")
            if case.planted and not dial.shared:
                raise ValueError(
                    f"dial.cases.{name} is planted and dial.shared is not set; it gives what experts share; set it, "
                    "or planted=false"
                )

    def _check_sequences(self) -> None:
        for name, training in self.trainings.items():
            seen = [name]
            while training.start_from:
                if training.start_from in seen:
                    chain = " -> ".join([*seen, training.start_from])
                    raise ValueError(
                        f"trainings start from each other: {chain}; one starts from the base; break the ring"
                    )
                seen.append(training.start_from)
                training = self.trainings[training.start_from]
