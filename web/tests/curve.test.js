import assert from 'node:assert/strict'
import { test } from 'node:test'
import { load } from './load.js'

const { apart, scaled, shownFloors, smoothed, ticks } = await load('curve.ts')

const steps = (losses) => losses.map((loss, i) => ({ step: i + 1, loss }))

test('a steady loss stays what it is when it is smoothed, and the first point is the first loss', () => {
  assert.deepEqual(smoothed(steps([3, 3, 3])).map(({ loss }) => Math.round(loss * 1e9) / 1e9), [3, 3, 3])
  assert.equal(smoothed(steps([5, 1, 1]))[0].loss, 5)
})

test('a long run becomes a curve of few points that ends where the run ends', () => {
  const curve = smoothed(steps(Array.from({ length: 50_000 }, (_, i) => 4 - i / 50_000)))
  assert.ok(curve.length < 800)
  assert.equal(curve.at(-1).step, 50_000)
})

test('a floor far above the whole curve is left out, one below it never', () => {
  const floors = { uniform: 11, unigram: 3, bigram: 2, trigram: 0.5 }
  assert.deepEqual(shownFloors(floors, [{ step: 1, loss: 4 }, { step: 2, loss: 1 }]).map(({ floor }) => floor), ['unigram', 'bigram', 'trigram'])
  assert.equal(shownFloors(floors, []).length, 4)
  assert.deepEqual(shownFloors(null, []), [])
  assert.deepEqual(shownFloors({ bigram: 0.9, trigram: 0.94 }, []).map(({ floor }) => floor), ['trigram', 'bigram'])
})

test('the scale holds every value, and an empty one is no fault', () => {
  const scale = scaled([{ step: 10, loss: 4 }], [{ step: 10, loss: 2 }], [{ loss: 1 }], 100, 50)
  for (const loss of [1, 2, 4]) assert.ok(scale.y(loss) > 0 && scale.y(loss) < 50)
  assert.equal(scale.x(10), 100)
  assert.ok(Number.isFinite(scaled([], [], [], 100, 50).y(1)))
})

test('ticks are round numbers', () => {
  assert.deepEqual(ticks(0.9, 4.2), [1, 2, 3, 4])
  assert.deepEqual(ticks(1.52, 1.71), [1.55, 1.6, 1.65, 1.7])
})

test('labels that would lie on each other are moved apart, within the picture', () => {
  assert.deepEqual(apart([10, 12, 60], 14, 100), [10, 24, 60])
  assert.deepEqual(apart([90, 98, 99], 14, 100), [72, 86, 100])
})
