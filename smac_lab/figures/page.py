"""The frame of `report.html`: layout, style and the words that are the same for every run."""

# Placeholders in single braces are filled in by `report`; braces of CSS and JavaScript are doubled.
TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="icon" href="data:,">
<style>
:root {{ color-scheme: light dark; --page: #fff; --ink: #1d2229; --soft: #59616c; --line: #d9dde2; --mark: #eef4f9;
  --grid: rgba(90,97,108,.22); }}
@media (prefers-color-scheme: dark) {{ :root {{ --page: #14171b; --ink: #e6e8eb; --soft: #a3abb5; --line: #363c44;
  --mark: #1d2833; --grid: rgba(163,171,181,.22); }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--page); color: var(--ink);
  font: 17px/1.55 system-ui, "Segoe UI", "Liberation Sans", Arial, sans-serif; }}
main {{ max-width: 1100px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }}
h1 {{ font-size: 2.1rem; line-height: 1.2; margin: 0; letter-spacing: -.01em; }}
h2 {{ font-size: 1.3rem; line-height: 1.3; margin: 3.2rem 0 .6rem; }}
h3 {{ font-size: 1.05rem; margin: 1.2rem 0 .2rem; }}
p {{ max-width: 46rem; }}
.facts-line, .caption, .note {{ color: var(--soft); }}
.caption {{ font-size: .92rem; margin-top: .4rem; max-width: 54rem; }}
.headline {{ border-left: 4px solid #E69F00; padding: .1rem 0 .1rem 1rem; font-size: 1.06rem; }}
figure {{ margin: .4rem 0; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
.wide {{ overflow-x: auto; }}
.summary {{ width: 100%; table-layout: fixed; font-size: .9rem; line-height: 1.35; }}
.summary th, .summary td {{ padding: .5rem .55rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; }}
.summary thead th {{ vertical-align: bottom; font-weight: 600; }}
.summary th[scope=row] {{ text-align: left; font-weight: 600; }}
.summary td b {{ font-size: 1.02rem; white-space: nowrap; }}
.summary small {{ font-weight: 400; color: var(--soft); font-size: .8rem; }}
.summary td small {{ display: block; }} .summary small span {{ white-space: nowrap; }}
.summary i {{ display: inline-block; width: .7em; height: .7em; border-radius: 2px; margin-right: .5em; }}
tr.default > *, .summary .default {{ background: var(--mark); }}
.mark {{ font-size: .72rem; font-weight: 600; color: var(--soft); border: 1px solid var(--line); border-radius: 3px;
  padding: 0 .3em; white-space: nowrap; }}
dl.words, dl.facts {{ display: grid; grid-template-columns: max-content 1fr; gap: .35rem 1.1rem; max-width: 58rem;
  font-size: .95rem; }}
dt {{ font-weight: 600; }} dd {{ margin: 0; overflow-wrap: anywhere; }}
pre {{ background: var(--mark); padding: .8rem 1rem; border-radius: 6px; white-space: pre-wrap; overflow-wrap: anywhere;
  font-size: .88rem; }}
.columns {{ columns: 2 26rem; }}
.config {{ font-size: .85rem; }} .config th {{ text-align: left; font-weight: 500; padding-right: 1.2rem; }}
.config small {{ color: var(--soft); }}
details {{ margin: 1.2rem 0; }} summary {{ cursor: pointer; font-weight: 600; }}
video {{ max-width: 100%; border-radius: 6px; }}
@media (max-width: 640px) {{ dl.words, dl.facts {{ grid-template-columns: 1fr; gap: .1rem; }}
  dt {{ margin-top: .5rem; }} body {{ font-size: 16px; }} .summary {{ font-size: .8rem; }}
  .summary th, .summary td {{ padding: .4rem .2rem; overflow-wrap: anywhere; }} .modebar {{ display: none; }} }}
/* Figures follow the page into the dark: plotly writes colours into its SVG, these win over them. */
.js-plotly-plot .main-svg g:not(.hoverlayer *) > text {{ fill: var(--ink) !important; }}
.js-plotly-plot .gridlayer path {{ stroke: var(--grid) !important; }}
.js-plotly-plot path.yerror {{ stroke: var(--ink) !important; }}
</style>
<script>{plotly}</script>
</head><body><main>
<h1>{title}</h1>
<p class=facts-line>{facts}</p>
<p>An agent that has been trained on recordings of many tasks meets a new one. It tries something for a few episodes,
infers from what it saw which task this is, and then acts. SMAC (semi-supervised meta actor-critic, Pong et al., ICML
2022) trains such an agent in two phases: the <em>offline phase</em> on recordings with rewards, and the
<em>self-supervised phase</em> on new interaction whose rewards nobody provides, so that a learnt decoder supplies
them. What may go wrong in between is that experience which the agent collects itself differs from the recordings, and
that what it infers from it is off. This page shows how large that distribution shift is in one run, what it costs, and
how much of the cost the second phase wins back.</p>
<p class=headline>{headline}</p>
<h2>The numbers: read the arms against &ldquo;before&rdquo;</h2>
{table}
{missing}
<dl class=words>
<dt>return</dt><dd>sum of rewards of one episode, averaged over tasks; higher is better. The rows of offline and
self-collected context are about training tasks; held-out tasks are new and have self-collected context only.</dd>
<dt>context, h</dt><dd>the transitions (state, action, reward) from which a task is inferred. <em>Offline context</em>
is drawn from {offline_context}; <em>self-collected context</em> is as many transitions that the agent gathers
itself while it does not know the task.</dd>
<dt>z, q(z | h), p(z)</dt><dd>z is a vector that stands for the task; q(z | h) is what the encoder believes about it
given context, a Gaussian (the posterior); p(z) is the standard Gaussian, what it believes before (the prior).</dd>
<dt>KL(a || b)</dt><dd>Kullback-Leibler divergence: how far belief a lies from belief b, in nats; 0 where they are
the same.</dd>
<dt>before, arms</dt><dd><em>before</em> is the agent after the offline phase. An arm is one way to go on from it.</dd>
{arms}
<dt>gap closed</dt><dd>1 &minus; gap after / gap before, the gap being return given offline context minus return given
self-collected context. A gap also closes when the return given offline context falls; hence the next row. A gap
before of less than 2&nbsp;% of what offline context gains over random actions is none to speak of: a dash.</dd>
<dt>recovered</dt><dd>rise of the return given self-collected context, as a share of the gap before.</dd>
<dt>share of range</dt><dd>where the return given self-collected context lies between random actions (0&nbsp;%) and the
best known controller (100&nbsp;%).</dd>
<dt>shift</dt><dd>normalised distance between the posteriors from both kinds of context; 0 is none, 1 is as far as
another task. The formula stands with its figure.</dd>
<dt>95 % interval</dt><dd>percentile bootstrap over seeds: what other seeds might have given. With two or three seeds it
is no more than their range.</dd>
</dl>

{sections}
<section><h2>How it was made</h2>
{settings}
{losses}
</section>
</main>
<script>
for (const fold of document.querySelectorAll("details"))
  fold.addEventListener("toggle", () => fold.querySelectorAll(".js-plotly-plot").forEach(p => Plotly.Plots.resize(p)));
</script>
</body></html>
"""
