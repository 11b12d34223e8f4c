/** A reference: the official SDK with the shortest possible `fetch` over an undici pool. */
import OpenAI from "openai"
import { Pool } from "undici"
import type * as Contestant from "./Contestant.ts"
import * as Sdk from "./sdk.ts"

const fetchOver =
  (pool: Pool): typeof fetch =>
  async (input, init) => {
    const url = new URL(input instanceof Request ? input.url : input)
    const response = await pool.request({
      path: url.pathname + url.search,
      method: init?.method ?? "GET",
      headers: Object.fromEntries(new Headers(init?.headers)),
      body: typeof init?.body === "string" ? init.body : null,
      signal: init?.signal ?? null
    })
    const headers = new Headers()
    for (const [name, value] of Object.entries(response.headers)) {
      if (value !== undefined) headers.set(name, String(value))
    }
    const streamed = headers.get("content-type")?.startsWith("text/event-stream") === true
    const body = streamed ? ReadableStream.from<Uint8Array>(response.body) : await response.body.text()
    return new Response(body, { status: response.statusCode, headers })
  }

export const make: Contestant.Make = async (baseURL) => {
  const pool = new Pool(new URL(baseURL).origin, { connections: 64 })
  return Sdk.fromClient(new OpenAI({ baseURL, apiKey: "sk-bench", maxRetries: 0, fetch: fetchOver(pool) }))
}
