/**
 * How often an address may come with a key that nobody knows: a bucket for each, and a bound on how many are kept.
 */
import { isIPv6 } from "node:net"

export interface Options {
  /** How many failures an address may have at once; 20 unless told. */
  readonly burst?: number | undefined
  /** How many more it may have each minute; 20 unless told. */
  readonly perMinute?: number | undefined
  /** The most addresses that are remembered; 10,000 unless told. */
  readonly capacity?: number | undefined
}

interface Bucket {
  left: number
  /** Milliseconds since the epoch. */
  at: number
}

/** Whoever has one address of version 6 has the 2^64 of its network. */
export const networkOf = (address: string): string => {
  if (!isIPv6(address)) return address
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/iu.exec(address)?.[1]
  if (mapped !== undefined) return mapped
  const [head = "", tail] = (address.split("%")[0] ?? "").toLowerCase().split("::")
  const groups = (text: string) => (text === "" ? [] : text.split(":"))
  const first = groups(head)
  const last = groups(tail ?? "")
  const between = tail === undefined ? 0 : Math.max(0, 8 - first.length - last.length)
  return [...first, ...Array.from({ length: between }, () => "0"), ...last]
    .slice(0, 4)
    .map((group) => group.replace(/^0+(?=.)/u, ""))
    .join(":")
}

/** Counts failures by address. */
export class FailedAttempts {
  /** The address that failed longest ago is the first. */
  private readonly buckets = new Map<string, Bucket>()
  private readonly burst: number
  private readonly perMillisecond: number
  private readonly capacity: number

  constructor({ burst = 20, capacity = 10_000, perMinute = 20 }: Options = {}) {
    this.burst = burst
    this.perMillisecond = perMinute / 60_000
    this.capacity = capacity
  }

  /** How many addresses are remembered. */
  get size(): number {
    return this.buckets.size
  }

  private leftOf({ at, left }: Bucket, now: number): number {
    return Math.min(this.burst, left + Math.max(0, now - at) * this.perMillisecond)
  }

  /**
   * How long an address has to wait before it may fail again, in milliseconds; 0 where it may now.
   *
   * @param now milliseconds since the epoch
   */
  waitOf(address: string, now: number): number {
    const bucket = this.buckets.get(networkOf(address))
    if (bucket === undefined) return 0
    const left = this.leftOf(bucket, now)
    return left >= 1 ? 0 : Math.ceil((1 - left) / this.perMillisecond)
  }

  /** Remembers a failure. */
  add(address: string, now: number): void {
    const network = networkOf(address)
    const bucket = this.buckets.get(network)
    const left = bucket === undefined ? this.burst : this.leftOf(bucket, now)
    this.buckets.delete(network)
    for (const oldest of this.buckets.keys()) {
      if (this.buckets.size < this.capacity) break
      this.buckets.delete(oldest)
    }
    this.buckets.set(network, { left: Math.max(0, left - 1), at: now })
  }
}
