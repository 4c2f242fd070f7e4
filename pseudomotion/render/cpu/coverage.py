"""How much of a pixel lies inside a layer's outline, as ``pseudomotion.outline`` defines outlines."""

# mypy: ignore-errors
# LLVM compiles these functions; their annotations are its types.

from pseudomotion import outline
from pseudomotion.render.cpu import table as T
from pseudomotion.render.cpu import vector as V
from pseudomotion.render.cpu.compiler import Floats, compiled, inlined


@inlined
def _superellipse(surface, u: Floats, v: Floats) -> (Floats, Floats, Floats):
    """``g`` and its gradient along both axes, as ``outline`` defines them."""
    u, v, steps = V.fabs(u), V.fabs(v), 0
    for k in range(outline.POWERS):
        if V.real(surface, T.PARAMS + 1) > k:
            steps += 1
    largest = max(u, v, outline.TINY)
    inverse = 1.0 / largest
    u, v = u * inverse, v * inverse
    power_u, power_v = u, v
    for _ in range(steps):
        power_u, power_v = power_u * power_u, power_v * power_v
    total = power_u + power_v
    for _ in range(steps):
        total = V.sqrt(total)
    total = max(total, 1.0)
    inverse = 1.0 / total
    along_u, along_v, square_u, square_v = Floats(1.0), Floats(1.0), u * inverse, v * inverse
    for _ in range(steps):
        along_u, along_v = along_u * square_u, along_v * square_v
        square_u, square_v = square_u * square_u, square_v * square_v
    return largest * total, along_u, along_v


@inlined
def _blob(surface, u: Floats, v: Floats) -> (Floats, Floats, Floats):
    """``g`` and its gradient along both axes, as ``outline`` defines them."""
    rho = V.sqrt(V.fma(u, u, v * v))
    inverse = 1.0 / max(rho, outline.TINY)
    u, v = u * inverse, v * inverse
    radius, change, cosine, sine = Floats(V.real(surface, T.PARAMS + 1)), Floats(0.0), u, v
    for i in V.SIX:
        cosine, sine = cosine * u - sine * v, cosine * v + sine * u
        c, s = V.real(surface, T.PARAMS + 2 + 2 * i), V.real(surface, T.PARAMS + 3 + 2 * i)
        radius = V.fma(sine, s, V.fma(cosine, c, radius))
        change = V.fma(s * cosine - c * sine, i + outline.ORDERS[0], change)
    inverse = 1.0 / radius
    slope = change * inverse
    return rho * inverse, V.fma(slope, v, u) * inverse, (v - slope * u) * inverse


@inlined
def box_coverage(surface, u: Floats, v: Floats) -> Floats:
    """How much of every texture pixel lies inside a layer's box."""
    sharpness = V.real(surface, T.SHARPNESS)
    inner_x = min(u - V.real(surface, T.BOX), V.real(surface, T.BOX + 2) - u)
    inner_y = min(v - V.real(surface, T.BOX + 1), V.real(surface, T.BOX + 3) - v)
    return V.clamp(V.fma(inner_x, sharpness, 0.5), 0.0, 1.0) * V.clamp(V.fma(inner_y, sharpness, 0.5), 0.0, 1.0)


@compiled
def coverage(surface, u: Floats, v: Floats) -> Floats:
    """How much of every texture pixel lies inside a layer's outline."""
    sharpness, shape = V.real(surface, T.SHARPNESS), V.whole(surface, T.SHAPE)
    if shape == outline.BOX:
        return box_coverage(surface, u, v)
    inner_x = min(u - V.real(surface, T.BOX), V.real(surface, T.BOX + 2) - u)
    inner_y = min(v - V.real(surface, T.BOX + 1), V.real(surface, T.BOX + 3) - v)
    x, y, distance = u - V.real(surface, T.CENTER), v - V.real(surface, T.CENTER + 1), min(inner_x, inner_y)
    if shape == outline.POLYGON:
        for k in range(outline.MOST_VERTICES):
            line = surface + 4 * (T.PARAMS + 3 * k)
            distance = min(distance, V.fma(x, V.real(line, 0), V.fma(y, V.real(line, 1), V.real(line, 2))))
    else:
        per_x, per_y, hole = V.real(surface, T.PER), V.real(surface, T.PER + 1), V.real(surface, T.PARAMS)
        if shape == outline.SUPERELLIPSE:
            value, along_x, along_y = _superellipse(surface, x * per_x, y * per_y)
        else:
            value, along_x, along_y = _blob(surface, x * per_x, y * per_y)
        along_x, along_y, within = along_x * per_x, along_y * per_y, 1 - value
        if hole > 0:
            within = min(within, value - hole)
        distance = min(distance, within / max(V.sqrt(V.fma(along_x, along_x, along_y * along_y)), outline.TINY))
    return V.clamp(V.fma(distance, sharpness, 0.5), 0.0, 1.0)
