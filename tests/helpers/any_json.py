"""A hypothesis strategy for unexpected JSON."""

from hypothesis import strategies as st

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.just(10**400),
    st.sampled_from(
        [
            "2026-01-15T10:00Z",
            "2026-01-15T10:00:00.1234567+02:00",
            "0001-01-01T00:00:00+14:00",
            "9999-12-31T23:59:59-14:00",
            "2026-02-30T00:00Z",
            "\ud800",
            "NaN",
            -1,
            1e300,
            float("nan"),
            float("inf"),
        ]
    ),
)


any_json = st.recursive(
    odd, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4))
)
