# %% Exercise 1
# Exercise 1: softmax weights
def softmax_weights(a, lam):
    return len(a) * torch.softmax(a / lam, dim=0)


# %% Exercise 2
# Exercise 2: behaviour cloning
def cloning_loss(agent, batch, z):
    mean, log_std = agent.actor(batch.observations, z)
    return -log_prob(mean, log_std, batch.actions).mean(), {}


# %% Exercise 3
# Exercise 3: ended or cut off
answer = (agent.config.reward_scale * -0.1, agent.config.reward_scale * -0.1 + agent.config.discount * -4.0)
