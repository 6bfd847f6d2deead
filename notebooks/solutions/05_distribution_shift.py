# %% Exercise 1
# Exercise 1: the normalised shift


def normalised_shift(within_on, within_off, between):
    return (within_on - within_off) / (between - within_off)


# %% Exercise 2
# Exercise 2: half of the shift
answer = max(share for share, kl in zip(shares, apart, strict=True) if kl <= apart[-1] / 2)

# %% Exercise 3
# Exercise 3: least information
answer = "expert"
