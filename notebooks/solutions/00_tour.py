# %% Exercise 1
# Exercise 1: share of the gap that was closed


def gap_closed(before, after):
    gap_before = before.offline_context_return - before.online_context_return
    gap_after = after.offline_context_return - after.online_context_return
    return 1 - gap_after / gap_before


# %% Exercise 2
# Exercise 2: acting on the prior
answer = lab.evaluate(agent, family, test, seed=1, exploration_episodes=0).final_returns.mean()
