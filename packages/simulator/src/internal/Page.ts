/** Lists with a cursor, as all of OpenAI's resources page them. */
import { Result } from "effect"
import type * as ApiError from "./ApiError.ts"
import * as Parameters from "./Parameters.ts"

export interface Page<A> {
  readonly object: "list"
  readonly data: ReadonlyArray<A>
  readonly first_id: string | null
  readonly last_id: string | null
  readonly has_more: boolean
}

/**
 * The page that a query asks for.
 *
 * @param items oldest first.
 * @param limit the number of a page when the query does not say (1 to `maximum`).
 */
export const make = <A extends { readonly id: string }>(
  items: ReadonlyArray<A>,
  query: URLSearchParams,
  { limit, maximum }: { readonly limit: number; readonly maximum: number }
): Result.Result<Page<A>, ApiError.ApiError> => {
  const asked = query.get("limit")
  const size = asked === null ? limit : /^\d+$/.test(asked) ? Number(asked) : 0
  if (size < 1 || size > maximum) {
    return Result.fail(Parameters.invalid("limit", `expected a whole number from 1 to ${maximum}`))
  }
  const order = query.get("order") ?? "desc"
  if (order !== "asc" && order !== "desc") {
    return Result.fail(Parameters.invalid("order", "expected 'asc' or 'desc'"))
  }
  const sorted = order === "asc" ? items : items.toReversed()
  const after = query.get("after")
  const before = query.get("before")
  const start = after === null ? 0 : sorted.findIndex(({ id }) => id === after) + 1
  const end = before === null ? sorted.length : sorted.findIndex(({ id }) => id === before)
  if (after !== null && start === 0) return Result.fail(unknownCursor("after", after))
  if (end === -1) return Result.fail(unknownCursor("before", before ?? ""))
  // Before a cursor come the items next to it, not those at the far end.
  const from = before !== null && after === null ? Math.max(start, end - size) : start
  const data = sorted.slice(from, Math.min(end, from + size))
  return Result.succeed({
    object: "list",
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: before !== null && after === null ? from > 0 : from + data.length < end
  })
}

const unknownCursor = (parameter: string, id: string): ApiError.ApiError =>
  Parameters.invalid(parameter, `no item with id '${id}'`)
