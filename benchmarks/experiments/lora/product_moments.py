"""Exact moments of ‖BA‖² for random factors: the null distribution of a test of Var(ΔW).

B (d, r) and A (r, n) have independent entries of mean 0, variances σ_B² and σ_A² and kurtoses κ_B
and κ_A (3 Gaussian, 1.8 uniform, 1 for random signs). The entries of BA are uncorrelated, but they
are not independent, so that ‖BA‖²/(dn) is no mean of dn independent squares.

With S = BᵀB and a_j the columns of A, ‖BA‖² = Σ_j a_jᵀ S a_j, n terms that are independent given B:

    E(aᵀSa | S)   = σ_A² tr S
    Var(aᵀSa | S) = σ_A⁴ (2 tr S² + (κ_A - 3) Σ_k S_kk²)
    E S_kk² = σ_B⁴ d (d + κ_B - 1),   E S_kl² = σ_B⁴ d (k ≠ l),   Var(tr S) = σ_B⁴ r d (κ_B - 1)

(the second is the variance of a quadratic form, e.g. Seber & Lee, Linear Regression Analysis,
theorem 1.6). Together, by the law of total variance:

    E ‖BA‖²   = d n r σ_A² σ_B²
    Var ‖BA‖² = (E ‖BA‖²)² ((κ_A - 1) d + (κ_B - 1) n + (κ_A - 1)(κ_B - 1) + 2 (r - 1)) / (r d n)

The squares of B's columns and A's rows alone make the diagonal part D = Σ_k S_kk (AAᵀ)_kk of
‖BA‖² = tr(S·AAᵀ). What is left are the cross terms T between different ranks, of mean 0.
"""

from __future__ import annotations


def expectation(d: int, n: int, rank: int, variance_a: float, variance_b: float) -> float:
    """E‖BA‖²."""
    return d * n * rank * variance_a * variance_b


def relative_variance(d: int, n: int, rank: int, kurtosis_a: float, kurtosis_b: float) -> float:
    """Var(‖BA‖²) / E(‖BA‖²)²: whatever the deviations of the entries."""
    excess_a, excess_b = kurtosis_a - 1, kurtosis_b - 1  # Var(x²)/E(x²)²
    terms = excess_a * d + excess_b * n + excess_a * excess_b + 2 * (rank - 1)
    return terms / (rank * d * n)


def relative_variance_of_cross_terms(d: int, n: int, rank: int) -> float:
    """Var(T) / E(‖BA‖²)² of the cross terms T, for any kurtosis.

    T is twice a sum over r(r - 1)/2 pairs k < l of S_kl (AAᵀ)_kl, which are uncorrelated and of
    variance d n σ_A⁴ σ_B⁴ each.
    """
    return 2 * (rank - 1) / (rank * d * n)


def correlated_over_independent(rank: int, rho_a: float, rho_b: float) -> float:
    """E‖BA‖² over its law where the entries of a row of B, and of a column of A, correlate.

    Equicorrelated with ρ_B and ρ_A across the rank, E (b·a)² = σ_A² σ_B² tr(R_B R_A) with
    R = (1 - ρ) I + ρ 11ᵀ, which is r (1 + (r - 1) ρ_A ρ_B). One factor alone changes nothing.
    """
    return 1 + (rank - 1) * rho_a * rho_b
