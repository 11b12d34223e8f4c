/** A client that hides nothing: the bytes of the reply and how the connection ended. */
import { Effect } from "effect"
import * as Net from "node:net"

export interface Reply {
  readonly status: number
  readonly headers: ReadonlyMap<string, string>
  /** Without the chunk frames. */
  readonly body: string
  /** Every byte that came, as text. */
  readonly bytes: string
  /** `fin`: the server closed; `reset`: RST; `complete`: the message ended and the connection stayed open. */
  readonly ended: "complete" | "fin" | "reset"
}

export interface Options {
  readonly method?: string
  readonly path?: string
  readonly headers?: Readonly<Record<string, string>>
  /** An object is sent as JSON. */
  readonly body?: unknown
}

const write = (options: Options): string => {
  const body =
    options.body === undefined
      ? ""
      : typeof options.body === "string"
        ? options.body
        : JSON.stringify(options.body)
  const headers = Object.entries(options.headers ?? {}).map(([name, value]) => `${name}: ${value}\r\n`)
  return `${options.method ?? "POST"} ${options.path ?? "/v1/chat/completions"} HTTP/1.1\r\nhost: simulator\r\n${headers.join("")}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`
}

/** One request on a connection of its own, read until the message or the connection ends. */
export const exchange = (port: number, options: Options): Effect.Effect<Reply> =>
  Effect.callback((resume) => {
    let bytes = ""
    const socket = Net.connect({ host: "127.0.0.1", port }, () => socket.write(write(options)))
    const done = (ended: Reply["ended"]) => {
      socket.removeAllListeners()
      socket.destroy()
      resume(Effect.sync(() => read(bytes, ended)))
    }
    socket.on("data", (chunk) => {
      bytes += chunk.toString("latin1")
      if (isComplete(bytes)) done("complete")
    })
    socket.on("end", () => done("fin"))
    socket.on("error", () => done("reset"))
    return Effect.sync(() => socket.destroy())
  })

/** A request whose reply is not awaited; the connection lives as long as the scope. */
export const open = (port: number, options: Options) =>
  Effect.acquireRelease(
    Effect.callback<Net.Socket>((resume) => {
      const socket = Net.connect({ host: "127.0.0.1", port }, () => {
        socket.write(write(options))
        resume(Effect.succeed(socket))
      })
      socket.on("error", () => {})
      socket.resume()
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

const read = (bytes: string, ended: Reply["ended"]): Reply => {
  const split = bytes.indexOf("\r\n\r\n")
  const [first = "", ...lines] = bytes.slice(0, Math.max(split, 0)).split("\r\n")
  const headers = new Map(
    lines.map((line) => [
      line.slice(0, line.indexOf(":")).toLowerCase(),
      line.slice(line.indexOf(":") + 1).trim()
    ])
  )
  const rest = split === -1 ? "" : bytes.slice(split + 4)
  const raw = headers.get("transfer-encoding") === "chunked" ? chunks(rest).join("") : rest
  return {
    status: Number(first.split(" ")[1] ?? 0),
    headers,
    body: Buffer.from(raw, "latin1").toString(),
    bytes,
    ended
  }
}

/** The pieces of a chunked body, in latin1. */
export const chunks = (text: string): ReadonlyArray<string> => {
  const pieces: Array<string> = []
  let rest = text
  while (rest !== "") {
    const line = rest.indexOf("\r\n")
    const size = Number.parseInt(rest.slice(0, line), 16)
    if (!(size > 0)) break
    pieces.push(rest.slice(line + 2, line + 2 + size))
    rest = rest.slice(line + 2 + size + 2)
  }
  return pieces
}

/** A message that ends by closing the connection is complete only at the FIN. */
const isComplete = (bytes: string): boolean => {
  const split = bytes.indexOf("\r\n\r\n")
  if (split === -1) return false
  const head = bytes.slice(0, split).toLowerCase()
  if (head.includes("connection: close")) return false
  const length = /content-length: (\d+)/.exec(head)
  if (length !== null) return bytes.length - split - 4 >= Number(length[1])
  return head.includes("transfer-encoding: chunked")
    ? bytes.endsWith("\r\n0\r\n\r\n")
    : /^http\/1.1 204/.test(head)
}

/** The data of the events of a stream whose lines end in LF. */
export const events = (body: string): ReadonlyArray<string> =>
  body
    .split("\n\n")
    .filter((block) => block.startsWith("data: "))
    .map((block) => block.slice("data: ".length))

/** The text that the content deltas add up to, and how many there were. */
export const content = (body: string): { readonly text: string; readonly count: number } => {
  const pieces = events(body).flatMap((data) => {
    const match = /"delta":\{"content":("(?:[^"\\]|\\.)+")\}/.exec(data)
    return match?.[1] === undefined ? [] : [String(JSON.parse(match[1]))]
  })
  return { text: pieces.join(""), count: pieces.length }
}
