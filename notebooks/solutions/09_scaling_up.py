# %% Exercise 1
# Exercise 1: updates of a paper run
paper = lab.SMACConfig.preset("cheetah-vel", "paper")
answer = paper.offline_steps + paper.online_iterations * paper.online_updates

# %% Exercise 2
# Exercise 2: hours of a paper run
def hours(config, update_rate):
    online_rows = config.online_meta_batch * config.online_batch_size
    longer = online_rows / (config.meta_batch * config.batch_size)
    online_updates = config.online_iterations * config.online_updates
    return (config.offline_steps + longer * online_updates) / update_rate / 3600
