# %% Exercise 1
# Exercise 1: join two posteriors
def join(first, second):
    precision = first.std**-2 + second.std**-2
    return (first.mean * first.std**-2 + second.mean * second.std**-2) / precision, precision**-0.5


# %% Exercise 2
# Exercise 2: best task
def best_task(features, actions, tasks):
    paid = [family.reward(features, actions, np.repeat(task[None], len(features), 0)).sum() for task in tasks.values]
    return int(np.argmax(paid))


# %% Exercise 3
# Exercise 3: throttle
wanted = cheetah.tasks.values[:, 0]
ids, count = torch.arange(len(wanted)), cheetah.family.horizon
seen = cheetah.buffer.sample_context(ids, count, generator, cheetah.buffer.offline_context)
told = runner.infer_posterior(seen).mean
policy = runner.policy(lab.Gaussian(told, torch.zeros_like(told)), generator)
ran_so = lab.rollout(policy, cheetah.family.batch_env(cheetah.tasks), seed=0)
answer = np.corrcoef(wanted, ran_so.features[..., 0].mean(1))[0, 1]
