# %% Exercise 1
# Exercise 1: a sparse reward
def sparse_reward(features, actions, tasks):
    distance = np.linalg.norm(features - tasks, axis=1)
    return np.where(distance <= 0.2, 1.0 - distance, 0.0)


# %% Exercise 2
# Exercise 2: the best task in hindsight
def best_in_hindsight(family, features, actions, candidates):
    # The sum of |v - v*| is least where as many speeds lie above v* as below: at the median.
    tasks = [np.full((len(features), 1), speed) for speed in candidates]
    returns = [family.reward(features, actions, task).sum() for task in tasks]
    return candidates[np.argmax(returns)]


# %% Exercise 3
# Exercise 3: a family of your own
class PointRing(lab.tasks.PointFamily):
    name, task_dim = "point-ring", 1

    def sample_tasks(self, rng, n):
        return rng.uniform(0.5, 1.5, (n, 1))

    def reward(self, features, actions, tasks):
        return -abs(np.linalg.norm(features, axis=1) - tasks[:, 0])
