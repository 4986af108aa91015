"""The learner (SL): takes its program's weights through the rounds of a training contract."""
