/** The routes that the simulator serves, and how a path finds its own. */
import * as Answer from "./Answer.ts"
import * as ApiError from "./ApiError.ts"
import type { Route } from "./Route.ts"
import * as ChatCompletions from "./routes/ChatCompletions.ts"
import * as Models from "./routes/Models.ts"

const routes: ReadonlyArray<Route> = [ChatCompletions.create, Models.list, Models.retrieve]

export interface Found {
  readonly route: Route
  readonly id: string
}

const exact = new Map(
  routes.filter((route) => !route.path.endsWith("{id}")).map((route) => [`/v1${route.path}`, route])
)
const open = routes
  .filter((route) => route.path.endsWith("/{id}"))
  .map((route) => ({ prefix: `/v1${route.path.slice(0, -"{id}".length)}`, route }))

/** The route for a request, or the error that answers it: 404 for a path, 405 for a method. */
export const find = (method: string, path: string): Found | Answer.Answer => {
  const fixed = exact.get(path)
  const prefixed = fixed === undefined ? open.find(({ prefix }) => path.startsWith(prefix)) : undefined
  const route = fixed ?? prefixed?.route
  if (route === undefined) {
    return Answer.error(ApiError.invalidRequest(`Invalid URL (${method} ${path})`, { status: 404 }))
  }
  if (route.method !== method) {
    return Answer.error(
      ApiError.invalidRequest(
        `Not allowed to ${method} on ${path}. (HINT: Perhaps you meant to make your HTTP request using a different method?)`,
        { status: 405, code: "method_not_supported" }
      )
    )
  }
  return { route, id: prefixed === undefined ? "" : decoded(path.slice(prefixed.prefix.length)) }
}

const decoded = (segment: string): string => {
  try {
    return decodeURIComponent(segment)
  } catch {
    return segment
  }
}
