"""The toy family's recipe: everybody's, with batches, sizes and the schedule's end of its own."""

from recipes.common import IMAGENET

RECIPES = {
    'toy/toy_n_in1k': dict(
        IMAGENET,
        drop_path=0.0,
        warm_up='5 epochs from 0.001',
        schedule='cosine from 5 to 300, min 1e-05',
        batch=64,
        test=[256, 224],
    )
}
