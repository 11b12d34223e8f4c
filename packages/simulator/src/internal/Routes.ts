/** The routes that the simulator serves, and how a path finds its own. */
import * as Answer from "./Answer.ts"
import * as ApiError from "./ApiError.ts"
import * as Operations from "./Operations.ts"
import type { Route } from "./Route.ts"
import * as Audio from "./routes/Audio.ts"
import * as Batches from "./routes/Batches.ts"
import * as ChatCompletions from "./routes/ChatCompletions.ts"
import * as Conversations from "./routes/Conversations.ts"
import * as Embeddings from "./routes/Embeddings.ts"
import * as Files from "./routes/Files.ts"
import * as Images from "./routes/Images.ts"
import * as Models from "./routes/Models.ts"
import * as Moderations from "./routes/Moderations.ts"
import * as Responses from "./routes/Responses.ts"
import * as Uploads from "./routes/Uploads.ts"
import * as VectorStoreFiles from "./routes/VectorStoreFiles.ts"
import * as VectorStores from "./routes/VectorStores.ts"

/** Each module of `routes/` exports its `routes`: a new one is one import and one line here. */
const routes: ReadonlyArray<Route> = [
  ...Audio.routes,
  ...Batches.routes,
  ...ChatCompletions.routes,
  ...Conversations.routes,
  ...Embeddings.routes,
  ...Files.routes,
  ...Images.routes,
  ...Models.routes,
  ...Moderations.routes,
  ...Responses.routes,
  ...Uploads.routes,
  ...VectorStoreFiles.routes,
  ...VectorStores.routes
]

export interface Found {
  readonly route: Route
  readonly params: Readonly<Record<string, string>>
}

interface Place {
  readonly pattern: RegExp
  readonly names: ReadonlyArray<string>
  readonly methods: ReadonlyMap<string, Route>
}

const none: Readonly<Record<string, string>> = {}

const byPath = Map.groupBy(routes, (route) => route.path)
const exact = new Map<string, ReadonlyMap<string, Route>>()
/** By the first segment of the path. */
const open = new Map<string, Array<Place>>()

for (const [path, group] of byPath) {
  const methods = new Map(group.map((route) => [route.method, route]))
  if (!path.includes("{")) {
    exact.set(`/v1${path}`, methods)
    continue
  }
  const names = [...path.matchAll(/\{(\w+)\*?\}/g)].map(([, name = ""]) => name)
  const pattern = new RegExp(
    `^/v1${path.replaceAll(/\{\w+\*\}/g, "(.*)").replaceAll(/\{\w+\}/g, "([^/]+)")}$`
  )
  const resource = path.split("/")[1] ?? ""
  const places = open.get(resource) ?? []
  places.push({ pattern, names, methods })
  open.set(resource, places)
}

const locate = (
  path: string
): { readonly methods: ReadonlyMap<string, Route>; readonly params: Found["params"] } | undefined => {
  const methods = exact.get(path)
  if (methods !== undefined) return { methods, params: none }
  for (const place of open.get(path.split("/", 3)[2] ?? "") ?? []) {
    const match = place.pattern.exec(path)
    if (match === null) continue
    return {
      methods: place.methods,
      params: Object.fromEntries(place.names.map((name, index) => [name, decoded(match[index + 1] ?? "")]))
    }
  }
  return undefined
}

/**
 * The route for a request, or the error that answers it: 501 for an operation that only the real API has, 404 for a
 * path, 405 for a method.
 */
export const find = (method: string, path: string): Found | Answer.Answer => {
  const place = locate(path)
  if (place?.methods.has(method) !== true) {
    const operation = Operations.find(method, path)
    if (operation !== undefined) return notSimulated(method, operation)
  }
  if (place === undefined) {
    return Answer.error(ApiError.invalidRequest(`Invalid URL (${method} ${path})`, { status: 404 }))
  }
  const route = place.methods.get(method)
  if (route === undefined) {
    return Answer.error(
      ApiError.invalidRequest(
        `Not allowed to ${method} on ${path}. (HINT: Perhaps you meant to make your HTTP request using a different method?)`,
        { status: 405, code: "method_not_supported" }
      )
    )
  }
  return { route, params: place.params }
}

/** No client should ask again, though the status is one of those that are tried again. */
const notSimulated = (method: string, operation: string): Answer.Answer => {
  const error = ApiError.notSimulated(method, operation)
  return Answer.json(ApiError.body(error), { status: error.status, headers: { "x-should-retry": "false" } })
}

const decoded = (segment: string): string => {
  try {
    return decodeURIComponent(segment)
  } catch {
    return segment
  }
}
