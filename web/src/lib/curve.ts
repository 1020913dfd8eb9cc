// From losses to a curve: smoothed, thinned, scaled. Pure; knows nothing of the screen but its size.

import type { Evaluation, Floors, StepReport } from './shapes'

export const FLOORS = ['uniform', 'unigram', 'bigram', 'trigram'] as const
export type Floor = (typeof FLOORS)[number]

export interface Point {
  step: number
  loss: number
}

export interface Scale {
  x: (step: number) => number
  y: (loss: number) => number
  low: number
  high: number
  steps: number
  ticks: number[]
}

const POINTS = 700

/** An exponential moving mean over about a fiftieth of the run, begun without a bias. */
export function smoothed(steps: StepReport[]): Point[] {
  const weight = 2 / (Math.min(Math.max(steps.length / 50, 4), 100) + 1)
  let mean = 0
  let sum = 0
  const all = steps.filter(({ loss }) => Number.isFinite(loss)).map(({ step, loss }) => {
    mean = mean * (1 - weight) + loss * weight
    sum = sum * (1 - weight) + weight
    return { step, loss: mean / sum }
  })
  return thinned(all)
}

export function thinned<T>(all: T[]): T[] {
  const stride = Math.ceil(all.length / POINTS)
  return stride < 2 ? all : all.filter((_, i) => i % stride === 0 || i === all.length - 1)
}

/** From the top down. Floors far above the whole curve are left out: they would press it flat. */
export function shownFloors(floors: Floors | null, curve: Point[]): { floor: Floor; loss: number }[] {
  const top = Math.max(...curve.map(({ loss }) => loss))
  return FLOORS.flatMap((floor) => {
    const loss = floors?.[floor]
    return typeof loss === 'number' && Number.isFinite(loss) && (!curve.length || loss <= top * 1.4) ? [{ floor, loss }] : []
  }).sort((one, other) => other.loss - one.loss)
}

export function scaled(
  curve: Point[], evaluations: Evaluation[], floors: { loss: number }[], width: number, height: number,
): Scale {
  const losses = [...curve, ...evaluations, ...floors].map(({ loss }) => loss).filter(Number.isFinite)
  const [least, most] = losses.length ? [Math.min(...losses), Math.max(...losses)] : [0, 1]
  const pad = Math.max((most - least) * 0.06, 0.02)
  const [low, high] = [Math.max(0, least - pad), most + pad]
  const steps = Math.max(1, ...curve.map(({ step }) => step), ...evaluations.map(({ step }) => step))
  return {
    x: (step) => (step / steps) * width,
    y: (loss) => ((high - Math.min(Math.max(loss, low), high)) / (high - low)) * height,
    low, high, steps,
    ticks: ticks(low, high),
  }
}

/** Round numbers within, four or so. */
export function ticks(low: number, high: number): number[] {
  const rough = (high - low) / 4
  const power = 10 ** Math.floor(Math.log10(rough))
  const stride = ([1, 2, 5, 10].find((one) => one * power >= rough) ?? 10) * power
  const found = []
  for (let i = Math.ceil(low / stride); i * stride <= high; i++) found.push(Number((i * stride).toPrecision(6)))
  return found
}

export function path(points: Point[], { x, y }: Scale): string {
  return points.map(({ step, loss }, i) => `${i ? 'L' : 'M'}${x(step).toFixed(1)} ${y(loss).toFixed(1)}`).join('')
}

/** Heights of labels, moved apart where they would lie on each other; given and returned from the top down. */
export function apart(heights: number[], gap: number, bottom: number): number[] {
  const found = [...heights]
  for (let i = 1; i < found.length; i++) found[i] = Math.max(found[i] as number, (found[i - 1] as number) + gap)
  for (let i = found.length - 1, most = bottom; i >= 0; i--, most -= gap) found[i] = Math.min(found[i] as number, most)
  return found
}
