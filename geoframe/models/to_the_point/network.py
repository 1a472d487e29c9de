"""The network: an image to the 2D positions of a template's vertices, and through the solver to a posed, bent mesh.

The network never says a pose. It says where the vertices are; pose and deformation are those that explain the
positions best, a small problem of each image on its own whose solution is differentiable.

Source: Kokkinos & Kokkinos 2021, sections 3.1 and 3.2.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geoframe._check import check_choice, check_int
from geoframe.data.object_crops import ObjectCrops
from geoframe.data.object_templates import ObjectTemplate, points_of_pixels
from geoframe.fitting.collections import on_screen, place
from geoframe.fitting.outlines import MaskOutlines, outline_moves
from geoframe.heads.backbone import Backbone, backbone
from geoframe.heads.masks import with_edges
from geoframe.heads.positions import ControlPositions, DensePositions, Positions
from geoframe.heads.zoo_maps import SHIPPED, ZooMaps
from geoframe.layers.shape_modes import ShapeModes
from geoframe.metrics.reconstruction import soft_iou
from geoframe.nearest.embedded import nearest_vertices
from geoframe.pixels import PixelMap
from geoframe.render import rasterize, vertex_visibility
from geoframe.solve.pose import Solution, solve_pose
from geoframe.surface import farthest_points
from geoframe.surface.mesh import Mesh
from geoframe.transforms import procrustes

if TYPE_CHECKING:
    from geoframe.models.surface_embedding import Predictor as Embedding

HEADS = ("control", "dense")
N_FUNCTIONS = 40  # that the modes are made of
DAMPING = 4.0  # of the highest of them against the lowest
_SPREAD_FUNCTIONS = 24  # that positions are made of
N_EVIDENCE = 8  # numbers that the confidence is made of
_FINEST = 64  # pixels a side of the silhouette that is compared with the head's mask, at least
_APART = 0.15  # halves of the side: positions of an image and its mirror image that far apart contradict each other
_OUTLINE_SIZE = 128  # pixels a side of the pictures in which outlines are compared
_OUTLINE_ROUNDS = 6  # horses' IoU .794 with 3, .799 with 6; cars' .916, .917, surface .643, .638
_MORE_STEPS = 8  # alternations of each further solve, which goes on where the last one ended
_OUTLINE_REACH = 12.0  # of those pixels
_EDGE_SQUARES = 32  # see `with_edges`: masks of unseen cars have IoU .89 without, .92 with
_LENS_STEPS = 1  # corrections of the positions for perspective


class Posed(NamedTuple):
    """Meshes in images.

    Attributes:
        verts: (B, V, 3) deformed, in the frame of the template.
        projected: (B, V, 3) x and y in halves of the image's side from its middle, and depth in the same unit.
        solution: pose and coefficients, in the same unit, with the second-best minimum.
    """

    verts: Tensor
    projected: Tensor
    solution: Solution

    def screen(self, size: int) -> Tensor:
        """(B, V, 3) pixel x, pixel y and depth in images of size x size, as `rasterize` takes them."""
        return on_screen(self.projected, size)

    def upright(self, rest: Tensor) -> Posed:
        """The same meshes in the same places, each shape turned as near to the template as it gets by turning.

        Modes of deformation can turn a shape as a whole, too, so that rotations are not told by the positions alone.
        These are the rotations that bring the template nearest to the meshes.

        Args:
            rest: (V, 3) of the template.
        """
        turn = procrustes(rest.to(self.verts).expand_as(self.verts), self.verts, scale=True).R
        s, turn = self.solution, turn.to(self.solution.R)
        turned = replace(s, R=s.R @ turn, second=s.second._replace(R=s.second.R @ turn))
        return self._replace(verts=self.verts @ turn.to(self.verts), solution=turned)


class ToThePoint(nn.Module):
    """A head that says positions, and the shape model that explains them.

    Args:
        head: images to `Positions`.
        shape: template and modes.
        template: mirror image and landmarks of the vertices.
        steps: alternations of pose and deformation.
        mode: "alternation" as in the paper, or "joint", see `solve_pose`.
        scale: "free", or "std" as in the paper.
        hidden: what a vertex counts that is surely hidden, against 1 for one that is surely seen; 0 in the paper.
        ridge: weight of the squared coefficients against the sum over the vertices, or None for the learned one of
            the paper's code, ``exp(shape.ridge)``.
        lens: perspective, the template's size over its distance from the eye; 0 is weak perspective, as in the
            paper. The solver stays that of weak perspective: what it is given are the positions that a camera far
            away would see, by the depths found so far (Dementhon & Davis 1995).
        outline: what a vertex on the outline counts beside its position, see `settled`; 0 leaves the mask out, as the
            paper does.
    """

    def __init__(
        self,
        head: ControlPositions | DensePositions,
        shape: ShapeModes,
        template: ObjectTemplate,
        *,
        steps: int = 4,
        mode: str = "alternation",
        scale: str = "free",
        hidden: float = 0.2,
        ridge: float | None = 0.5,
        lens: float = 0.0,
        outline: float = 0.0,
    ) -> None:
        super().__init__()
        self.head, self.shape, self.template = head, shape, template
        self.steps = check_int(steps, "steps", low=1)
        self.mode = check_choice(mode, ("alternation", "joint"), "mode")
        self.scale = check_choice(scale, ("free", "std"), "scale")
        self.hidden, self.ridge, self.lens, self.outline = hidden, ridge, lens, outline
        self.register_buffer("calibration", torch.zeros(N_EVIDENCE + 1))  # weights of the evidence, the limit

    @property
    def calibrated(self) -> bool:
        """Whether the confidence was calibrated on crops that were set aside; else it is the same for all."""
        return bool(cast(Tensor, self.calibration)[: N_EVIDENCE - 1].any())

    @property
    def faces(self) -> Tensor:
        """(F, 3) of the template."""
        return self.template.surface.faces

    def forward(self, image: Tensor | Sequence[Tensor]) -> Positions:
        """Positions of images (B, 3, H, W) in [0, 1]; with head "control" also of the backbone's maps of them."""
        found: Positions = self.head(image)
        return found

    def look(self, image: Tensor) -> Positions:
        """Positions of images and of their mirror images, averaged; no heat maps. Masks follow the images' edges.

        Where the two are far apart one of them is wrong: the one whose control points are spread more is left out.
        Templates without mirror plane are looked at once.

        Args:
            image: (B, 3, H, W) in [0, 1].
        """
        here = self(image)._replace(heat=None)
        if not self.template.is_symmetric:
            return here._replace(mask=_along_edges(here.mask, image))
        there = self(image.flip(-1))
        points = flipped(there.points, self.template)
        visibility = self.template.mirrored(there.visibility[..., None])[..., 0]
        apart = (here.points - points).norm(dim=-1).mean(1)
        share = torch.full_like(apart, 0.5)
        if here.spread is not None and there.spread is not None:
            share = torch.where(apart < _APART, share, (here.spread > there.spread).to(share))
        mask = None if there.mask is None else there.mask.flip(-1)
        return Positions(
            here.points.lerp(points, share[:, None, None]),
            here.visibility.lerp(visibility, share[:, None]),
            None
            if here.mask is None or mask is None
            else _along_edges(here.mask.lerp(mask, share[:, None, None]), image),
            spread=None
            if here.spread is None or there.spread is None
            else here.spread.lerp(there.spread, share),
            apart=apart.detach(),
        )

    def solve(self, found: Positions, *, deform: bool = True, steps: int | None = None) -> Posed:
        """The posed meshes that explain positions.

        Args:
            found: what the network said.
            deform: False leaves the mean shape as it is.
            steps: alternations, of each solve from the start; None for those of the model, after which further solves,
                for the lens and for outlines, go on where the last one ended.
        """
        return self._explained(_full(found.points), self._counted(found), self._shapes(deform), steps)

    def _shapes(self, deform: bool) -> tuple[Tensor, Tensor | None]:
        """Mean shape and basis, or None without."""
        return self.shape.template(), self.shape.basis() if deform and self.shape.n_modes else None

    def _counted(self, found: Positions) -> Tensor:
        """(B, V) what each vertex counts."""
        return self.hidden + (1 - self.hidden) * _full(found.visibility).sigmoid()

    def _explained(
        self,
        points: Tensor,
        v: Tensor,
        shapes: tuple[Tensor, Tensor | None],
        steps: int | None,
        near: Posed | None = None,
    ) -> Posed:
        """The posed meshes that explain positions (B, V, 2) of weights (B, V), perhaps near to others."""
        mean, basis = shapes
        ridge = self.shape.ridge.exp() if self.ridge is None else torch.tensor(self.ridge)
        verts = mean.expand(len(v), -1, -1) if near is None else near.verts
        given = points
        solution: Solution | None = None if near is None else near.solution
        for _ in range(1 + _LENS_STEPS * bool(self.lens and near is None)):
            if self.lens and solution is not None:  # what a camera far away would see
                depth = 1 + self.lens * (verts @ solution.R.mT)[..., 2:]
                middle = solution.t[:, None]
                given = middle + depth * (points - middle)
            go_on = steps is None and self.mode == "alternation" and basis is not None and not self.training
            start = solution if go_on else None
            solution = solve_pose(
                *(given, v, mean, basis),
                ridge=ridge.to(v).expand(len(v)),
                scale=self.scale,
                mode=self.mode,
                steps=(steps or self.steps) if start is None else min(_MORE_STEPS, self.steps),
                start=start,
            )
            verts = verts if basis is None else mean + torch.tensordot(solution.alpha, basis, dims=1)
        assert solution is not None
        lens = torch.full_like(solution.scale, self.lens) if self.lens else None
        return Posed(verts, place(verts, solution.R, solution.t, solution.scale, lens), solution)

    @torch.no_grad()
    def settled(self, found: Positions, *, deform: bool = True, steps: int | None = None) -> Posed:
        """The posed meshes that explain positions and, by their outlines, the head's mask; in use, not in training.

        In turns, the vertices on the outline of the drawn mesh are moved to the nearest outline of the mask, and pose
        and deformation are solved for again, with both the positions and the moved vertices to explain.

        Args:
            found: what the network said.
            deform: see `solve`.
            steps: see `solve`.
        """
        v, shapes = self._counted(found), self._shapes(deform)
        posed = self._explained(_full(found.points), v, shapes, steps)
        if found.mask is None or not self.outline:
            return posed.upright(cast(Tensor, self.shape.verts))
        size = _OUTLINE_SIZE
        wide = F.interpolate(found.mask[:, None].float(), (size, size), mode="bilinear", align_corners=False)
        outlines = MaskOutlines.of(wide[:, 0] > 0)
        for _ in range(_OUTLINE_ROUNDS):
            screen = posed.screen(size)
            drawn = rasterize(screen, self.faces, (size, size)).mask
            moves, weight = outline_moves(screen[..., :2], drawn, outlines, reach=_OUTLINE_REACH)
            goal = posed.projected[..., :2] + moves * (2 / size)
            counted = self.outline * weight.to(v)
            points = (v[..., None] * _full(found.points) + counted[..., None] * goal) / (v + counted)[
                ..., None
            ]
            posed = self._explained(points.to(v), v + counted, shapes, steps, posed)
        return posed.upright(cast(Tensor, self.shape.verts))

    def seen(self, posed: Posed, size: int) -> Tensor:
        """(B, V) bool: vertices that the z-buffer of size x size pixels shows."""
        screen = posed.screen(size).detach()
        with torch.no_grad():
            return vertex_visibility(rasterize(screen, self.faces, (size, size)), self.faces, screen)

    @torch.no_grad()
    def evidence(self, found: Positions, posed: Posed) -> Tensor:
        """What tells whether a pose is right, and whether the image shows the category at all.

        Args:
            found: what the network said.
            posed: the meshes that explain it.

        Returns:
            (B, 8): how badly the pose explains the positions; how much better than the second one does; the overlap of
            silhouette and the head's mask; how spread the places of the control points are; how far the positions in
            the mirror image are from these; how badly the vertices that the mesh shows are those that the head says
            are seen; how much the template is bent; and 1. All but the third and the last are logarithms. What nobody
            says is 0.
        """
        s = posed.solution
        misfit = (s.residual / s.scale.clamp_min(1e-6)).clamp(1e-4, 1).log()
        lead = (s.second.residual / s.residual.clamp_min(1e-9)).clamp(1, 10).log()
        none = torch.zeros_like(misfit)
        m = _FINEST if found.mask is None else found.mask.shape[-1]
        finer = -(-_FINEST // m)
        screen, size = posed.screen(finer * m), finer * m
        fragments = rasterize(screen, self.faces, (size, size))
        overlap, spread, apart, bent = none, none, none, none
        if found.mask is not None:
            share = F.avg_pool2d(fragments.mask.to(misfit)[:, None], finer)[:, 0]
            overlap = soft_iou(share, found.mask.sigmoid().to(misfit))
        if found.spread is not None:
            spread = found.spread.to(misfit).clamp_min(1e-3).log()
        if found.apart is not None:
            apart = found.apart.to(misfit).clamp_min(1e-3).log()
        shown = vertex_visibility(fragments, self.faces, screen).to(misfit)
        off = F.binary_cross_entropy_with_logits(found.visibility.to(misfit), shown, reduction="none").mean(1)
        if s.alpha.shape[1]:
            bent = s.alpha.square().mean(1).clamp_min(1e-2).log()
        told = (misfit, lead, overlap, spread, apart, off.clamp(1e-2, 10).log(), bent, torch.ones_like(none))
        return torch.stack(told, 1).float()


def _along_edges(mask: Tensor | None, image: Tensor) -> Tensor | None:
    """Mask logits (B, m, m) whose outlines follow the edges of the images (B, 3, H, W)."""
    if mask is None:
        return None
    size = (mask.shape[-2], mask.shape[-1])
    guide = image if tuple(image.shape[-2:]) == size else F.adaptive_avg_pool2d(image, size)
    return with_edges(mask.detach(), guide.detach(), _EDGE_SQUARES)


def _full(x: Tensor) -> Tensor:
    """Half precision as float32, all else as it is."""
    return x if x.dtype == torch.float64 else x.float()


def smooth_functions(mesh: Mesh, n: int = N_FUNCTIONS, *, damping: float = DAMPING) -> Tensor:
    """(V, n) eigenfunctions of a template after the constant, of mean square 1, those of high frequency smaller.

    Args:
        mesh: the template.
        n: how many.
        damping: the highest is divided by 1 + damping.
    """
    from geoframe.spectral import eigenbasis

    basis = eigenbasis(mesh, min(n + 1, mesh.n_verts - 2))
    vals, vecs = basis.vals[1:], basis.vecs[:, 1:] * basis.mass.sum().sqrt()
    return vecs / (1 + damping * vals / vals[-1])


def mirror_matrix(template: ObjectTemplate) -> Tensor | None:
    """(V, V) that carries functions to their mirror images; None for a template without mirror plane."""
    if not template.is_symmetric:
        return None
    out = torch.zeros(template.n_verts, template.n_verts, dtype=torch.float64)
    return out.scatter_add_(1, template.mirror_source, template.mirror_weights.double())


def shape_model(
    template: ObjectTemplate, n_modes: int, *, n_symmetric: int = 0, spread: float = 0.01, seed: int = 0
) -> ShapeModes:
    """The mean shape and modes of a template, before anything is learned.

    Args:
        template: of the category.
        n_modes: K.
        n_symmetric: how many modes are mirror-symmetric.
        spread: of the modes' weights.
        seed: of these.
    """
    mirror = mirror_matrix(template)
    return ShapeModes(
        template.surface.verts.float(),
        smooth_functions(template.surface).float(),
        n_modes,
        mirror=None if mirror is None else mirror.float(),
        reflection=None if mirror is None else template.reflection.float(),
        n_symmetric=n_symmetric if mirror is not None else 0,
        spread=spread,
        seed=seed,
    )


def features(name: str, *, enlarged: int = 1, trunk: int | None = None) -> Backbone:
    """The backbone of a name, see `geoframe.heads.backbone`; "animals" and "things" are `ZooMaps`.

    Args:
        name: of the backbone.
        enlarged: how many times crops are enlarged for it.
        trunk: stride from which on its weights are learned; None leaves a pretrained one as it is.
    """
    learned = None if trunk is None else True
    if name in SHIPPED:
        net: Backbone = ZooMaps(name, enlarged=enlarged, trainable=bool(learned))
    else:
        net = backbone(name, enlarged=enlarged, trainable=learned)
    return net if trunk is None or net.frozen else net.learn_from(trunk)


def unfrozen(model: ToThePoint, enlarged: int, trunk: int) -> ToThePoint:
    """The same model with a backbone that is learned from a stride on; see `features`."""
    old = model.head
    assert isinstance(old, ControlPositions)
    head = copy.deepcopy(old)
    head.field.backbone = features(old.backbone.name, enlarged=enlarged, trunk=trunk)
    out = copy.copy(model)
    out._modules = {**model._modules, "head": head}
    return out


def position_head(
    kind: str,
    net: Backbone,
    template: ObjectTemplate,
    *,
    n_controls: int = 64,
    width: int = 64,
    sharpness: float = 1.0,
) -> ControlPositions | DensePositions:
    """A head for the vertices of a template.

    Args:
        kind: "control" is ours, "dense" the paper's.
        net: the backbone.
        template: of the category.
        n_controls: P, of "control".
        width: of the decoder of "control".
        sharpness: of the heat maps of "control" in use, see `ControlPositions`.
    """
    check_choice(kind, HEADS, "kind")
    verts = template.surface.verts.double()
    if kind == "dense":
        return DensePositions(net, verts[:, :2] * verts.new_tensor([0.7, -0.7]))
    controls = farthest_points(verts, min(n_controls, template.n_verts))
    functions = smooth_functions(template.surface, _SPREAD_FUNCTIONS, damping=0.0)
    return ControlPositions(net, verts, functions, controls, width=width, sharpness=sharpness)


def embedded_points(
    crops: ObjectCrops,
    template: ObjectTemplate,
    embedding: Embedding,
    category: str,
    *,
    progress: Callable[[str, float], None] | None = None,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Where a surface embedding sees which vertices: correspondences to start from without keypoints.

    It looks once at each crop, in squares: three looks at every pixel take three times as long, and poses of horses by
    them are no better (162: 10.6 and 11.4 degrees in the median, 13.6 and 12.3 % wrong).

    Args:
        crops: n.
        template: of a surface that the embedding knows.
        embedding: a predictor of surface embeddings.
        category: the name of that surface.
        progress: called with (text, share done).

    Returns:
        For each crop what `points_of_pixels` gives.

    Raises:
        ValueError: an unknown category, a template of another surface.
    """
    embedding = embedding.of(category)
    target, out = embedding.target(category), []
    for i, (image, mask) in enumerate(zip(crops.image, crops.mask, strict=True)):
        found = embedding.fields(as_images(image))
        size = (found.mask.shape[0], found.mask.shape[1])
        inside = F.adaptive_avg_pool2d(mask[None].float(), size)[0] > 0.5
        x = found.embedding[:, inside].T
        vertex, confidence = torch.full(inside.shape, -1), torch.zeros(inside.shape)
        vertex[inside] = nearest_vertices(x, target.table)
        confidence[inside] = embedding.model.calibration(embedding.evidence(x, found.mask[inside], target))
        pixels = PixelMap(target.surface, vertex, inside, confidence)
        out.append(points_of_pixels(pixels, inside, template, target.surface))
        if progress is not None and i % 10 == 0:
            progress(f"embedding, {i + 1} of {len(crops)}", 0.0)
    return out


def flipped(found: Tensor, template: ObjectTemplate) -> Tensor:
    """Positions (B, V, 2) as they are in the flipped images."""
    return template.mirrored(found) * found.new_tensor([-1.0, 1.0])


def as_images(image: Tensor) -> Tensor:
    """(B, 3, S, S) in [0, 1] of uint8."""
    return cast(Tensor, image.float() / 255) if image.dtype == torch.uint8 else image
