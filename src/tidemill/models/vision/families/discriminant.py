"""What a net of another study sees, and the head that needs the fewest images: of a dozen a class, in seconds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tidemill.core.space import Categorical, Param, Space
from tidemill.core.task import Task
from tidemill.core.trial import Config, Cost
from tidemill.models.training.budget import TrainBudget
from tidemill.models.vision._base import FittedNet, ImageData, ImageProfile
from tidemill.models.vision.weights import Origin, fill_by_name, origin_of, read_safetensors, weights_file

if TYPE_CHECKING:
    from tidemill.models.vision.augment import Augment
    from tidemill.models.vision.nets.parts import Classifier

_MOST_IMAGES = 20_000
"""Features of so many images are held in memory; from more a shape is known no better."""
_COPIES, _MOST_BYTES = 4, 100_000_000
"""Copies of each image that are moved a little, and bytes of all of them: where images are few, a class is as wide as
they say together."""


class DiscriminantFamily:
    """`tidemill.models.vision.nets.grid` with a head of `tidemill.models.training.discriminant`.

    The net was trained by another study, and stays as it is. Where a net that is trained on from the same weights
    learns a dozen images of each class by heart, this learns but their means, and one shape for all of them.
    """

    name: ClassVar[str] = "discriminant"
    sees_through: ClassVar[tuple[str, ...]] = ("quicknet", "resnet9", "resnet", "mobilenet")
    """Families whose nets can say what they see place by place."""

    def supports(self, task: Task, profile: ImageProfile) -> bool:
        """Classes, where there are weights of a study's own net for such images."""
        return task.kind.is_classification and profile.rows >= 8 and bool(self._fitting(profile))

    def space(self, task: Task, profile: ImageProfile) -> Space:
        """Which weights, how many places are told apart, and how far copies of the images are moved."""
        found = self._fitting(profile)
        params: list[Param] = [
            Categorical(f"{self.name}.weights", found, found[0]),
            Categorical(f"{self.name}.cells", (1, 2, 3), 3),
            Categorical(f"{self.name}.shift", (0.0, 0.07, 0.125), 0.125),
        ]
        if profile.mirrored:
            params.append(Categorical(f"{self.name}.mirror", (True, False), True))
        return Space(params)

    def cost(self, config: Config, task: Task, profile: ImageProfile) -> Cost:
        """Count on a net without memory."""
        import torch

        from tidemill.models.vision._net import count

        with torch.device("meta"):
            return count(self._made(config, self._origin(config), task, profile), profile)

    def fit(
        self,
        config: Config,
        task: Task,
        profile: ImageProfile,
        train: ImageData,
        valid: ImageData | None,
        budget: TrainBudget,
        seed: int,
    ) -> FittedNet:
        """Look at every image once, and fit the head; ``valid`` chooses how far it is shrunk, and how loud it is."""
        from tidemill.models.training.calibrate import calibrate
        from tidemill.models.training.discriminant import fit_discriminant
        from tidemill.models.vision.augment import Augment
        from tidemill.models.vision.linear import head_on_features
        from tidemill.models.vision.samples import ImageSamples

        origin, named = self._origin(config), str(config[f"{self.name}.weights"])
        net = self._made(config, origin, task, profile).eval()
        inner: Any = net.body
        fill_by_name(inner.inner, read_safetensors(weights_file(named)), named, may_differ=())
        rng = np.random.default_rng(seed)
        some = replace(train, rows=rng.permutation(train.rows)[:_MOST_IMAGES])
        chosen_by = valid is not None and len(valid) > 0
        if chosen_by:  # where some of the images are set apart for that, no copy of them may be learned from
            augment = Augment(flip=net.mirror, shift=float(config.get(f"{self.name}.shift", 0.0)))
            some = _with_copies(some, augment, rng)
        head_on_features(net, some, valid, budget, task, fit=fit_discriminant)
        if net.mirror and valid is not None and chosen_by:
            calibrate(net, net.last, ImageSamples(valid, Augment(), task.n_classes))
        return self._kept(config, origin, profile, net)

    def restore(self, state: dict[str, Any], task: Task) -> FittedNet:
        """Build again from what was kept of the origin, and fill."""
        from tidemill.models.training.trained import fill

        profile = ImageProfile.from_json(state["profile"])
        origin = Origin(str(state["origin"]["family"]), dict(state["origin"]["config"]), profile.channels)
        net = fill(self._made(state["config"], origin, task, profile), state["state"])
        return self._kept(state["config"], origin, profile, net)

    def _fitting(self, profile: ImageProfile) -> tuple[str, ...]:
        """Weights at hand through which such images can be seen."""
        found = ((place, origin_of(place)) for place in profile.weights)
        return tuple(p for p, o in found if o and o.family in self.sees_through and o.channels == profile.channels)

    def _origin(self, config: Config) -> Origin:
        origin = origin_of(str(config[f"{self.name}.weights"]))
        assert origin is not None, "the space names no other weights"
        return origin

    def _made(self, config: Config, origin: Origin, task: Task, profile: ImageProfile) -> Classifier:
        from tidemill.models.vision import pool
        from tidemill.models.vision._net import wrap
        from tidemill.models.vision.nets.grid import Grid

        family: Any = pool.families([origin.family])[origin.family]
        image = (profile.channels, profile.height, profile.width)
        inner = family.build(origin.config, 1, profile)
        body = Grid(inner, image, task.n_outputs, int(config[f"{self.name}.cells"]))
        return wrap(body, task, profile, mirror=bool(config.get(f"{self.name}.mirror", False)))

    def _kept(self, config: Config, origin: Origin, profile: ImageProfile, net: Classifier) -> FittedNet:
        from tidemill.models.vision._net import TrainedNet, count

        more = {"origin": {"family": origin.family, "config": origin.config}}
        return TrainedNet(self.name, config, profile, net, count(net, profile), more)


def _with_copies(data: ImageData, augment: Augment, rng: np.random.Generator) -> ImageData:
    """The images and moved copies of them, as many as may be."""
    import torch

    pixels, y = np.asarray(data.x[data.rows]), data.y[data.rows]
    copies = min(_COPIES, _MOST_IMAGES // len(data) - 1, _MOST_BYTES // pixels.nbytes - 1)
    if copies < 1 or not (augment.flip or augment.shift):
        return data
    images, targets = torch.from_numpy(pixels.astype(np.float32)), torch.from_numpy(y)
    moved = [augment(images, targets, rng, 0)[0].numpy().astype(np.uint8) for _ in range(copies)]
    return ImageData(np.concatenate([pixels, *moved]), np.tile(y, 1 + copies), np.arange(len(y) * (1 + copies)))


FAMILY = DiscriminantFamily()
