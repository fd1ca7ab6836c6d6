"""Attributions as pictures over images, and beside the tokens of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from kerasline.components.data.display import as_pixels, save_picture
from kerasline.components.explainer.gradients import Attributions, IntegratedGradients
from kerasline.components.explainer.subject import Raw, Subject
from kerasline.components.models.prepared import Prepared
from kerasline.components.preprocessing.layers.subwords import Subwords
from kerasline.components.preprocessing.layers.word_piece import WordPiece

# Blue lowers the score, red raises it. Most kinds of colour blindness can distinguish the two.
LOWERS, RAISES = (33, 102, 172), (178, 24, 43)


def attribution_pictures(
    media: Mapping[str, str], gradients: IntegratedGradients, found: Attributions, number: int, folder: Path
) -> dict[str, str]:
    """Write the attributions of a row over its images. Return paths by column."""
    written = {}
    for column, path in media.items():
        feature = gradients.image_of(column) if path.endswith(".png") else None
        if feature is not None:
            written[column] = path.removesuffix(".png") + "-attribution.png"
            values, image = found.values[feature][number], found.points[feature][number]
            write_attribution(values, image, folder / written[column])
    return written


class TokenTexts:
    """The texts of the tokens that a model embeds, with their attributions.

    Args:
        subject: the model to explain.
        gradients: its integrated gradients.
        raw: some rows, by which is found what each embedding receives.
    """

    def __init__(self, subject: Subject, gradients: IntegratedGradients, raw: Raw) -> None:
        self._subject, prepared = subject, Prepared(subject.features, None)
        self._features = {
            name: feature for name, feature in gradients.tokens_of(raw).items() if prepared.has_vocabulary(feature)
        }
        self._texts = {feature: _token_texts(prepared, feature) for feature in self._features.values()}

    def __bool__(self) -> bool:
        return bool(self._features)

    def attributed(self, raw: Raw, found: Attributions) -> list[dict[str, list[tuple[str, float]]]]:
        """Return pairs of text and attribution by feature for each row. Padding is left out."""
        rows: list[dict[str, list[tuple[str, float]]]] = [{} for _ in found.missing]
        features = self._subject.prepare(raw) if self else {}
        for name, feature in self._features.items():
            texts = self._texts[feature]
            for row, ids, values in zip(rows, features[feature].numpy(), found.values[name]):
                known = row.get(feature)  # the sum over all embeddings of the feature
                pairs = [(texts[number], float(value)) for number, value in zip(ids, values) if texts[number]]
                row[feature] = pairs if known is None else [(text, a + b) for (text, a), (_, b) in zip(known, pairs)]
        return rows


def _token_texts(prepared: Prepared, feature: str) -> Sequence[str]:
    """Return the texts of a vocabulary by id, with a space where a word begins, and "" for padding."""
    vocabulary, layer = prepared.vocabulary(feature), prepared.layer(feature)
    if isinstance(layer, Subwords):
        texts = [piece.replace("▁", " ") for piece in vocabulary]
    elif isinstance(layer, WordPiece):
        texts = [piece[2:] if piece.startswith("##") else f" {piece}" for piece in vocabulary]
    else:
        texts = [f" {word}" for word in vocabulary]
    padding = prepared.special_ids(feature).get("padding")
    return ["" if number == padding else text for number, text in enumerate(texts)]


def write_attribution(values: np.ndarray, image: np.ndarray, path: Path) -> None:
    """Write attributions as colours over the grey image. The strongest percent has full colour.

    Args:
        values: (height, width) or (height, width, channels), which are summed.
        image: the image, of the same shape.
    """
    heat = values.sum(-1) if values.ndim == 3 else values
    grey = as_pixels(image.mean(-1) if image.ndim == 3 else image).astype(np.float64)[..., None]
    strongest = np.quantile(np.abs(heat), 0.99) or np.abs(heat).max() or 1.0
    strength = np.clip(np.abs(heat) / strongest, 0, 1)[..., None]
    colour = np.where(heat[..., None] >= 0, RAISES, LOWERS)
    # Lighten the grey, so that colours are visible on dark and light areas.
    mixed = (1 - strength) * (128 + grey / 2) + strength * colour
    save_picture(Image.fromarray(np.round(mixed).astype(np.uint8)), path)
