"""Draw sample.jpg: a house under a plain sky, so that there is much to drop and something to keep.

python make_sample.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 640, 480


def main() -> None:
    rng = np.random.default_rng(0)
    fade = np.linspace(0, 1, HEIGHT)[:, None, None]
    sky = (1 - fade) * np.array([74, 134, 204]) + fade * np.array([214, 229, 240])
    picture = Image.fromarray(np.broadcast_to(sky, (HEIGHT, WIDTH, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((150, 55, 215, 120), fill=(255, 236, 160))
    hill = [(x, 330 - 40 * np.sin(x / 130)) for x in range(0, WIDTH + 1, 4)]
    draw.polygon([(0, HEIGHT), *hill, (WIDTH, HEIGHT)], fill=(96, 140, 84))
    draw.rectangle((300, 250, 440, 370), fill=(214, 186, 150))
    draw.polygon([(280, 255), (370, 180), (460, 255)], fill=(152, 62, 48))
    for left in (318, 394):
        draw.rectangle((left, 275, left + 28, 305), fill=(60, 76, 96), outline=(245, 240, 230), width=3)
    draw.rectangle((354, 310, 386, 370), fill=(92, 60, 40))
    for _ in range(220):
        x, y = rng.normal(215, 24), rng.normal(290, 30)
        shade = int(rng.integers(-25, 25))
        draw.ellipse((x - 9, y - 9, x + 9, y + 9), fill=(52 + shade, 104 + shade, 50 + shade))
    draw.rectangle((209, 320, 221, 385), fill=(88, 62, 44))
    grain = rng.normal(0, 2, (HEIGHT, WIDTH, 1))
    soft = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.8))) + grain
    path = Path(__file__).with_name("sample.jpg")
    Image.fromarray(soft.clip(0, 255).astype(np.uint8)).save(path, quality=85)


if __name__ == "__main__":
    main()
