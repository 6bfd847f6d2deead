# %% Exercise 1
# Exercise 1: returns from columns
def returns_of(buffer, horizon):
    sums = torch.bincount(buffer.task, weights=buffer.rewards.double(), minlength=buffer.n_tasks)
    return sums / (buffer.counts / horizon)


# %% Exercise 2
# Exercise 2: the goal from rewards, exactly
def goal_from(next_states, rewards):
    """Goal `(2,)` from positions after the move, `(n, 2)`, and rewards, `(n,)`."""
    columns = np.concatenate([-2 * next_states, np.ones((len(rewards), 1))], axis=1)
    return np.linalg.lstsq(columns, rewards**2 - (next_states**2).sum(1), rcond=None)[0][:2]


# %% Exercise 3
# Exercise 3: take the hint away
def without_hint(buffer, family, tasks, episodes):
    return lab.shared_between_tasks(buffer, family, tasks, episodes, seed=0)
