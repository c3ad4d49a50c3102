"""Mistakes that a checker must find: on each line that ends in `# wrong`, and on no other."""

from sage import DataStream, LocalEnvironment, MapFunction

env = LocalEnvironment("mistaken")
numbers: DataStream[int] = env.from_collection([1, 2, 3])


class Shout(MapFunction[str, str]):
    def execute(self, data: str) -> str:
        return data.upper()


def length(text: str) -> int:
    return len(text)


numbers.map(length)  # wrong
numbers.map(Shout)  # wrong
numbers.filter(length)  # wrong
numbers.flat_map(lambda n: n)  # wrong
numbers.union(numbers.map(str))  # wrong
numbers.map(str, on_error="ignore")  # wrong
numbers.reduce(lambda a, b: a + b)  # wrong
numbers.map(str).map(lambda text: text.missing)  # wrong
numbers.key_by(lambda n: [n])  # wrong
env.from_batch([1, 2]).map(length)  # wrong
env.from_source(lambda: iter("abc")).map(lambda text: text.missing)  # wrong
numbers.connect(numbers).key_by(length, nmae="key")  # wrong
numbers.map(str).map(length).collect()
