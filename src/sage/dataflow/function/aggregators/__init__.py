"""Ready-made aggregates: `stream.key_by("carrier").aggregate(mean("delay"))`.

Each is a function that takes the field to aggregate and returns an `AggregateFunction`:

| Call | Result | Of nothing |
|---|---|---|
| `count()`, `count(field)` | how many records; how many whose field is not `None` | 0 |
| `sum_of(field)` | the sum | 0 |
| `mean(field)` | the mean | `None` |
| `variance(field, ddof=1)`, `stddev(field, ddof=1)` | the variance; its root | `None` |
| `min_of(field)`, `max_of(field)` | the smallest, the largest value | `None` |
| `first(field)`, `last(field)` | the first, the last value to arrive | `None` |
| `top_k(k, field, key=…, largest=True)` | the `k` largest, or of the top records | `[]` |
| `collect(field, limit=…)` | all values, or the first `limit` | `[]` |
| `distinct(field)`, `count_distinct(field)` | the different values; how many | `set()`, 0 |
| `quantiles(field, qs=…)` | estimated quantiles (needs the extra `sketches`) | `{q: None}` |
| `multi(a=…, b=…)` | the results of several, `{"a": …, "b": …}` | that of each |

*Names.* Each is called by what its result is: `mean("delay")`. Where that word is a builtin (`sum`,
`min`, `max`), `_of` is added, so that importing it shadows nothing. The class behind each is public
too: `Mean`, `TopK`, `StdDev`.

*Fields.* A name, a dotted path (`"pos.x"`), an index, a callable, or nothing for the record itself.
A record that lacks the field is an error; for a field that may be missing, give a callable such as
`lambda record: record.get("delay")`.

*None* is no value, as in SQL: all skip it, except `count()`, which counts records, and `collect`,
whose list keeps the place of each record.

*NaN* is a value, and spoils what is calculated from it: sum, mean, variance, minimum, maximum and
quantiles become NaN. `top_k` puts it first; `distinct` sees one NaN however many there are.

*Order.* `first`, `last`, `collect` and all ties go by the order of arrival. When accumulators are
merged, the first one given counts as the earlier.

*Accumulators* are plain data, or a sketch, that can be pickled and copied at any time; `add` and
`merge` may change them in place. A result never shares a list, set or dict with its accumulator;
the values in it are those of the records, not copies. A value that does not fit raises a
`TypeError` that names the aggregate and the value, and leaves the accumulator as it was.
"""

from sage.dataflow.function.aggregators.base import Aggregator, Field
from sage.dataflow.function.aggregators.collecting import (
    Collect,
    Count,
    CountDistinct,
    Distinct,
    collect,
    count,
    count_distinct,
    distinct,
)
from sage.dataflow.function.aggregators.multi import Multi, multi
from sage.dataflow.function.aggregators.numeric import (
    Mean,
    StdDev,
    Sum,
    Variance,
    mean,
    stddev,
    sum_of,
    variance,
)
from sage.dataflow.function.aggregators.selecting import (
    First,
    Last,
    Max,
    Min,
    TopK,
    first,
    last,
    max_of,
    min_of,
    top_k,
)
from sage.dataflow.function.aggregators.sketch import Quantiles, quantiles

__all__ = [
    "Aggregator",
    "Collect",
    "Count",
    "CountDistinct",
    "Distinct",
    "Field",
    "First",
    "Last",
    "Max",
    "Mean",
    "Min",
    "Multi",
    "Quantiles",
    "StdDev",
    "Sum",
    "TopK",
    "Variance",
    "collect",
    "count",
    "count_distinct",
    "distinct",
    "first",
    "last",
    "max_of",
    "mean",
    "min_of",
    "multi",
    "quantiles",
    "stddev",
    "sum_of",
    "top_k",
    "variance",
]
