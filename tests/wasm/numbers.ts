// Functions in AssemblyScript for tests: numbers in, numbers out.

export function fib(n: i32): i64 {
  let a: i64 = 0, b: i64 = 1;
  for (let i = 0; i < n; i++) {
    const next = a + b;
    a = b;
    b = next;
  }
  return a;
}

export function mean(a: f64, b: f64): f64 {
  return (a + b) / 2;
}

export function sorted(n: i32): i32 {
  const all = new Array<i32>();
  for (let i = 0; i < n; i++) all.push((i * 7919) % n);
  all.sort((a, b) => a - b);
  return all[n - 1];
}
