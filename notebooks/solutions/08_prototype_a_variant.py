# %% Exercise 1
# Exercise 1: binary CRR
def crr_loss(agent, batch, z):
    at = actor_critic.evaluations_of(agent, batch, z)
    with torch.no_grad():
        preferred = at.data_values().amin(0) > at.policy_values().amin(0)
    mean, log_std = at.policy()
    loss = -(preferred * actor_critic.log_prob(mean, log_std, batch.actions)).mean()
    return loss, {"actor_loss": loss}


# %% Exercise 2
# Exercise 2: seeds needed
def seeds_needed(differences, width):
    return int(np.ceil((1.96 * differences.std(ddof=1) / width) ** 2))
