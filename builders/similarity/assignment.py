"""One-to-one partners of two dictionaries' latents with the largest sum of values: exact, or among candidates for wide dictionaries."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from builders.arrays import Bools, Floats, Ints
from builders.similarity.measures import Floats32, Measure, blocks
from builders.similarity.nearest import Nearest

EXACT = 16_384  # latents a side: the matrix of the exact form then takes 2.1 GB
AUCTION = 2_048  # latents of B from which an auction saves time; it takes about 10 to 200 ms
SPARE = 16  # and only where at most one in SPARE of them stays alone: with more to spare, paths are short anyway
ROUNDS, STEP = 2_000, 1e-4  # of the auction: rounds at most, and by how much a bid goes at least beyond the price


Assigned = tuple[Ints, Floats32]  # the partner of each latent of A, −1 without one, and the value of both, NaN without one


def assigned(measure: Measure, nearest_a: Nearest, nearest_b: Nearest) -> Assigned:
    """Return the partner in B of each latent of A so that the summed value is largest, and the value (both [latents of A]).

    *nearest_a* and *nearest_b* are the nearest by *measure* and by the flipped measure, such as 32 of each latent. Up to EXACT
    latents a side, or as many pairs, the sum is exact, and only latents of the larger dictionary stay alone (−1, NaN); above, it is
    that of `among_candidates`. Source: Paulo & Belrose 2025 (arXiv 2501.16615) assign decoder and, separately, encoder rows.
    """
    n, m = measure.shape
    if n * m > EXACT**2:
        return among_candidates(nearest_a, nearest_b)
    return exact(measure, nearest_a) if n <= m else _inverse(*exact(measure.flipped(), nearest_b), n)


def exact(measure: Measure, nearest_a: Nearest) -> Assigned:
    """Return the partner of each latent of A with the largest sum, and the value; A must not have more latents than B.

    The cost of a pair is the price of B's latent minus the pair's value. A price that is paid whoever takes the latent changes no
    optimum if every latent of B is taken, for which A is filled up with latents of value 0. Shortest augmenting paths (Crouse
    2016, IEEE TAES 52, in SciPy) are then short: at the prices of an auction nearly every latent of A wants what it won. The
    others go first, while much is free. In small or lopsided matrices paths are short without prices. Memory is one float64 matrix.
    """
    n, m = measure.shape
    filled = m >= AUCTION and m - n <= m // SPARE
    price, won = prices(nearest_a, m) if filled else (np.zeros(m), np.zeros(n, dtype=bool))
    place = np.argsort(np.argsort(won, kind="stable"))  # the row of each latent
    cost = np.empty((m if filled else n, m))
    cost[n:] = price
    for low, block in blocks(measure):
        for row, values in zip(place[low:], block, strict=False):
            np.subtract(price, values, out=cost[row])  # row by row, without a second block in float64
    partner: Ints = linear_sum_assignment(cost)[1][place]  # maximize=True would copy the matrix
    return partner, (price[partner] - cost[place, partner]).astype(np.float32)


def prices(nearest_a: Nearest, m: int) -> tuple[Floats, Bools]:
    """Return a price for each of B's *m* latents and which latents of A can have what they want at these prices [latents of A].

    In each round of the auction, every latent of A without a partner bids for the candidate with the largest value minus price,
    up to where its second choice would do as well. It leaves once what lies beyond its candidates may do as well. Source:
    Bertsekas 1988, Annals of Operations Research 14, 105–123.
    """
    value, partner = nearest_a.value.astype(np.float64), nearest_a.partner
    price, owner = np.zeros(m), np.full(m, -1)
    bidders = np.arange(len(partner) if partner.shape[1] > 1 else 0)
    for _ in range(ROUNDS):
        bidders, wanted, bid = _bids(bidders, value[bidders] - price[partner[bidders]], value[:, -1], partner)
        if not len(bidders):
            break
        order = np.argsort(bid, kind="stable")  # of several bids for a latent the last is kept, so the highest comes last
        outbid = owner[wanted]
        owner[wanted[order]] = bidders[order]
        price[wanted[order]] += bid[order]
        bidders = np.setdiff1d(np.append(bidders, outbid[outbid >= 0]), owner[wanted])
    won = np.zeros(len(partner), dtype=bool)
    won[owner[owner >= 0]] = True
    return price, won


def _bids(bidders: Ints, net: Floats, beyond: Floats, partner: Ints) -> tuple[Ints, Ints, Floats]:
    """Return who still bids, the latent that each wants, and how far it goes beyond the price; *net* is [bidders, candidates]."""
    row = np.arange(len(bidders))
    choice = net.argmax(axis=1)
    first = net[row, choice]
    net[row, choice] = -np.inf
    second = np.maximum(net.max(axis=1), beyond[bidders])
    stays = first > beyond[bidders]
    bidders, choice = bidders[stays], choice[stays]
    return bidders, partner[bidders, choice], first[stays] - second[stays] + STEP


def among_candidates(nearest_a: Nearest, nearest_b: Nearest) -> Assigned:
    """Return the partner of each latent of A among the nearest of either side, and the value (both [latents of A]).

    A lonely latent of A or B is worth half of the least value in its own list. The sum over pairs and lonely latents is the
    largest, and where A and B have equally many latents it is at least the exact sum: a pair that is in neither list is worth no
    more than its two latents alone. To be alone is to have a private dummy partner, so that a full matching exists (LAPJVsp of
    Jonker & Volgenant 1987, Computing 38, in SciPy).
    """
    n, m = len(nearest_a.partner), len(nearest_b.partner)
    partner, value = np.full(n, -1, dtype=np.int64), np.full(n, np.nan, dtype=np.float32)
    if not n or not m:
        return partner, value
    row, column, values = _listed(nearest_a, nearest_b)
    gain = values - (nearest_a.value[row, -1].astype(np.float64) + nearest_b.value[column, -1]) / 2
    row, column, values, gain = (part[gain > 0] for part in (row, column, values, gain))
    edges = np.append(row, np.arange(n)), np.append(column, m + np.arange(n))
    weights = 1 + np.append(gain, np.zeros(n))  # SciPy takes a zero for no edge
    matched = min_weight_full_bipartite_matching(csr_array((weights, edges), shape=(n, m + n)), maximize=True)[1]
    kept = matched[row] == column
    partner[row[kept]], value[row[kept]] = column[kept], values[kept]
    return partner, value


def _listed(nearest_a: Nearest, nearest_b: Nearest) -> tuple[Ints, Ints, Floats32]:
    """Return the latent of A, the latent of B and the value of every pair that is in either list, each pair once: all [pairs]."""
    m = len(nearest_b.partner)
    of_a, of_b = (np.indices(nearest.partner.shape)[0] for nearest in (nearest_a, nearest_b))
    pair = np.append(of_a * m + nearest_a.partner, nearest_b.partner * m + of_b)
    pair, first = np.unique(pair, return_index=True)
    return pair // m, pair % m, np.append(nearest_a.value, nearest_b.value)[first]


def _inverse(partner: Ints, value: Floats32, n: int) -> Assigned:
    """Return for each of *n* latents who has it as a *partner*, and the *value*."""
    inverse, values = np.full(n, -1, dtype=np.int64), np.full(n, np.nan, dtype=np.float32)
    inverse[partner], values[partner] = np.arange(len(partner)), value
    return inverse, values
