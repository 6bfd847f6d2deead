# %% Exercise 1
# Exercise 1: binary CRR
def crr_loss(agent, batch, z):
    seen = actor_critic.look(agent, batch, z)
    preferred = seen.data_values.amin(0) > seen.policy_values.amin(0)
    loss = -(preferred * actor_critic.log_prob(seen.mean, seen.log_std, batch.actions)).mean()
    return loss, {"actor_loss": loss}


# %% Exercise 2
# Exercise 2: seeds needed
def seeds_needed(differences, width):
    return int(np.ceil((1.96 * differences.std(ddof=1) / width) ** 2))
