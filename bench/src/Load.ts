/** The load generator: an undici pool in the parent process, which checks every answer that it gets. */
import { setTimeout as sleep } from "node:timers/promises"
import { Pool } from "undici"
import * as Canned from "./Canned.ts"

export interface Target {
  readonly name: string
  readonly origin: string
  readonly headers: Readonly<Record<string, string>>
  /** The API key of the next call; one that nobody knows unless told. */
  readonly nextKey?: () => string
}

const requestMillis = 30_000

const send = (pool: Pool, target: Target, model: Canned.Model) =>
  pool.request({
    path: "/v1/chat/completions",
    method: "POST",
    headers: {
      "content-type": "application/json",
      authorization: `Bearer ${target.nextKey?.() ?? "sk-bench"}`,
      ...target.headers
    },
    body: Canned.request(model),
    headersTimeout: requestMillis,
    bodyTimeout: requestMillis
  })

const chatOnce = async (pool: Pool, target: Target) => {
  const response = await send(pool, target, "bench-chat")
  const text = await response.body.text()
  if (response.statusCode !== 200 || !text.includes("scatters")) {
    throw new Error(`${target.name} answered a chat call with ${response.statusCode}: ${text.slice(0, 300)}`)
  }
}

/** Resolves once somebody listens; rejects after a minute. */
export const listening = async (port: number) => {
  const pool = new Pool(`http://127.0.0.1:${port}`)
  const giveUp = performance.now() + 60_000
  for (;;) {
    try {
      const { body } = await pool.request({ path: "/healthz", method: "GET" })
      await body.dump()
      return await pool.destroy()
    } catch (fault) {
      if (performance.now() > giveUp) throw fault
      await sleep(50)
    }
  }
}

/** Resolves once the contestant answers a chat call; rejects with its last fault after two minutes. */
export const ready = async (target: Target) => {
  const pool = new Pool(target.origin)
  const giveUp = performance.now() + 120_000
  for (;;) {
    try {
      await chatOnce(pool, target)
      return await pool.destroy()
    } catch (fault) {
      if (performance.now() > giveUp)
        throw new Error(`${target.name} does not answer: ${String(fault)}`, { cause: fault })
      await sleep(100)
    }
  }
}

/** A closed loop: `concurrency` workers that share `count` jobs. */
export const loop = async (count: number, concurrency: number, job: () => Promise<void>) => {
  let left = count
  const worker = async () => {
    while (left > 0) {
      left -= 1
      await job()
    }
  }
  await Promise.all(Array.from({ length: concurrency }, worker))
}

export const chats = async (target: Target, count: number, concurrency: number) => {
  const pool = new Pool(target.origin, { connections: concurrency })
  await loop(count, concurrency, () => chatOnce(pool, target))
  await pool.destroy()
}

/** Returns how many events arrived per chunk that the contestant wrote: 1 means that each was forwarded at once. */
export const streams = async (target: Target, count: number, concurrency: number, events: number) => {
  const pool = new Pool(target.origin, { connections: concurrency })
  let chunks = 0
  await loop(count, concurrency, async () => {
    const response = await send(pool, target, `bench-stream-${events}`)
    let text = ""
    for await (const chunk of response.body) {
      chunks += 1
      text += chunk
    }
    const seen = text.split("\n\n").length - 1
    if (response.statusCode !== 200 || seen !== events + Canned.endEvents || !text.endsWith("[DONE]\n\n")) {
      throw new Error(
        `${target.name} answered a stream with ${response.statusCode}, ${seen} events: ${text.slice(-300)}`
      )
    }
  })
  await pool.destroy()
  return (count * events) / chunks
}

/** Times of single calls in microseconds, one after the other on one connection. */
export const latencies = async (target: Target, count: number): Promise<ReadonlyArray<number>> => {
  const pool = new Pool(target.origin, { connections: 1 })
  const times: Array<number> = []
  await chatOnce(pool, target)
  for (let call = 0; call < count; call++) {
    const begin = performance.now()
    await chatOnce(pool, target)
    times.push((performance.now() - begin) * 1_000)
  }
  await pool.destroy()
  return times
}

/** As if random between 0 and 1, and the same in every run: a linear congruential generator. */
const draws = () => {
  let state = 1
  return () => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32
}

/**
 * Times of calls in microseconds that come at random moments, so many per second, whether earlier ones have been
 * answered or not: what is slow delays no call that comes after it, and is not left out.
 */
export const paced = async (
  target: Target,
  perSecond: number,
  seconds: number
): Promise<ReadonlyArray<number>> => {
  const pool = new Pool(target.origin, { connections: null })
  const draw = draws()
  const times: Array<number> = []
  const running: Array<Promise<void>> = []
  const call = async () => {
    const begin = performance.now()
    await chatOnce(pool, target)
    times.push((performance.now() - begin) * 1_000)
  }
  const start = performance.now()
  const nextGap = () => (-Math.log(1 - draw()) / perSecond) * 1_000
  for (let at = nextGap(); at < seconds * 1_000; at += nextGap()) {
    const wait = start + at - performance.now()
    if (wait > 0) await sleep(wait)
    running.push(call())
  }
  await Promise.all(running)
  await pool.destroy()
  return times
}

/** Opens streams and keeps them open once each has delivered `events` events; closing them is a client that leaves. */
export const hold = async (target: Target, count: number, events: number): Promise<AsyncDisposable> => {
  const pool = new Pool(target.origin, { connections: null })
  const opened = loop(count, 50, async () => {
    const response = await send(pool, target, `bench-hold-${events}`)
    response.body.on("error", () => {})
    await new Promise<void>((resolve, reject) => {
      let text = ""
      response.body.on("data", (chunk: Buffer) => {
        text += chunk.toString()
        if (text.split("\n\n").length > events) resolve()
      })
      response.body.on("close", () =>
        reject(new Error(`${target.name} closed a stream that should stay open: ${text}`))
      )
    })
  })
  try {
    await opened
  } catch (fault) {
    await pool.destroy()
    throw fault
  }
  return { [Symbol.asyncDispose]: () => pool.destroy() }
}
