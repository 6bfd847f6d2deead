# %% Exercise 1
# Exercise 1: nearest neighbours
def share_of_same_aim(means, aims):
    """Share of tasks, in [0, 1], whose nearest other mean is of a task with the same aim."""
    distances = np.linalg.norm(means[:, None] - means[None], axis=-1)
    np.fill_diagonal(distances, np.inf)  # a mean is not its own neighbour
    return np.mean(aims[distances.argmin(1)] == aims)


# %% Exercise 2
# Exercise 2: chance to have seen it
def chance(n, aims=8):
    """Probability that `n` independent draws contain one given aim of `aims`."""
    return 1 - (1 - 1 / aims) ** n
