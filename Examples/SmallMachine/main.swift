// SPDX-License-Identifier: Apache-2.0

import Glibc
import Rangeland
import SystemPackage

/// What the machine can do. Registers are named by numbers.
enum Operation: UInt8 {
  /// Ends the program.
  case halt = 1
  /// r[a] = value
  case set
  /// r[a] = r[a] + value
  case add
  /// r[a] = the 8 bytes at r[b] + value
  case load
  /// The 8 bytes at r[b] + value = r[a]
  case store
  /// Goes on at `value` unless r[a] is 0.
  case jump
  /// r[0] = system call r[0] with r[1], r[2], ...
  case call
}

/// An instruction is 8 bytes in the machine's memory.
struct Instruction {
  var operation: UInt8
  var a: UInt8 = 0
  var b: UInt8 = 0
  var unused: UInt8 = 0
  var value: Int32 = 0

  init(_ operation: Operation, _ a: UInt8 = 0, _ b: UInt8 = 0, _ value: Int32 = 0) {
    (self.operation, self.a, self.b, self.value) = (operation.rawValue, a, b, value)
  }
}

/// Where things are in the machine's memory.
enum Layout {
  static let code: Address = 0x1_0000
  static let heap: Address = 0x10_0000
  static let scores: Address = 0x20_0000
  static let stack = AddressRange(start: 0x7f_0000, end: 0x80_0000)
}

/// A machine: 8 registers, the address of the next instruction, and memory of its own.
struct Machine {
  var space: AddressSpace
  var registers = [UInt64](repeating: 0, count: 8)
  var next = Layout.code

  /// A machine that is about to run a program.
  init(program: [Instruction]) throws {
    space = try AddressSpace()
    let length = UInt64(program.count * MemoryLayout<Instruction>.stride)
    _ = try space.map(
      length: length, at: .fixedNoReplace(Layout.code), protection: [.read, .write])
    for (index, instruction) in program.enumerated() {
      try space.store(instruction, at: Layout.code + UInt64(index) * 8)
    }
    try space.protect(at: Layout.code, length: length, [.read, .execute])

    let stack = Layout.stack
    _ = try space.map(
      length: stack.length, at: .fixedNoReplace(stack.start), protection: [.read, .write])
    space.heapStart = Layout.heap
  }
}

/// Why a machine stopped.
enum Stop: CustomStringConvertible {
  case halted
  case illegal(Instruction)
  case fault(AccessFault)

  var description: String {
    switch self {
    case .halted: "halted"
    case .illegal(let instruction): "illegal \(instruction)"
    case .fault(let fault): "\(fault)"
    }
  }
}

extension Machine {
  /// Runs until the program ends or does what it may not do. After a fault the machine stands before the
  /// instruction that faulted, and makes it again when it is run again.
  mutating func run() -> Stop {
    do throws(AccessFault) {
      while true {
        try space.fault(at: next, .execute)
        let instruction = try space.load(Instruction.self, at: next)
        guard let operation = Operation(rawValue: instruction.operation) else {
          return .illegal(instruction)
        }
        if operation == .halt { return .halted }
        try step(operation, instruction)
      }
    } catch {
      return .fault(error)
    }
  }

  private mutating func step(
    _ operation: Operation, _ instruction: Instruction
  ) throws(AccessFault) {
    let (a, b) = (Int(instruction.a & 7), Int(instruction.b & 7))
    let value = UInt64(bitPattern: Int64(instruction.value))
    var target = next + 8
    switch operation {
    case .halt: break
    case .set: registers[a] = value
    case .add: registers[a] &+= value
    case .load: registers[a] = try space.load(at: registers[b] &+ value)
    case .store: try space.store(registers[a], at: registers[b] &+ value)
    case .jump: if registers[a] != 0 { target = value }
    case .call: registers[0] = systemCall()
    }
    next = target
  }
}

extension Machine {
  /// The system call that the registers ask for.
  private func systemCall() -> UInt64 {
    let allowed: Set<LinuxCall> = [.mmap, .mprotect, .munmap, .brk, .msync]
    guard let call = LinuxCall(rawValue: Int(truncatingIfNeeded: registers[0])),
      allowed.contains(call)
    else { return UInt64(bitPattern: -Int64(Errno.noFunction.rawValue)) }
    var arguments = LinuxArguments(
      registers[1], registers[2], registers[3], registers[4], registers[5], registers[6])
    // The machine has no files: a descriptor that it names would be one of this program.
    if call == .mmap { arguments.fifth = .max }
    return UInt64(bitPattern: Int64(space.systemCall(call, arguments)))
  }
}

/// Adds 1 to the first score and to the last word of the stack, `rounds` times; has the scores written back; and then
/// stores where its own instructions are.
func playing(rounds: Int32) -> [Instruction] {
  let loop = Int32(Layout.code) + 3 * 8
  return [
    Instruction(.set, 1, 0, Int32(Layout.scores)),
    Instruction(.set, 2, 0, Int32(Layout.stack.end)),
    Instruction(.set, 3, 0, rounds),
    // loop:
    Instruction(.load, 4, 1, 0),
    Instruction(.add, 4, 0, 1),
    Instruction(.store, 4, 1, 0),
    Instruction(.load, 5, 2, -8),
    Instruction(.add, 5, 0, 1),
    Instruction(.store, 5, 2, -8),
    Instruction(.add, 3, 0, -1),
    Instruction(.jump, 3, 0, loop),
    // msync(scores, 4096, MS_SYNC)
    Instruction(.set, 0, 0, Int32(LinuxCall.msync.rawValue)),
    Instruction(.set, 1, 0, Int32(Layout.scores)),
    Instruction(.set, 2, 0, 4096),
    Instruction(.set, 3, 0, 4),
    Instruction(.call),
    // What must not work.
    Instruction(.set, 2, 0, Int32(Layout.code)),
    Instruction(.store, 0, 2, 0),
    Instruction(.halt),
  ]
}

var machine = try Machine(program: playing(rounds: 1000))
print(machine.space.maps(), terminator: "")
print("stopped:", machine.run())

let file = FileDescriptor(rawValue: fileno(tmpfile()))
try file.resize(to: 4096)
let scores = try FileObject(descriptor: file, memory: machine.space.memory)
_ = try machine.space.map(
  scores, length: scores.size, at: .fixedNoReplace(Layout.scores),
  protection: [.read, .write], sharing: .shared)

extension Machine {
  /// The same machine, at this moment, in a space of its own.
  func snapshot() throws -> Machine {
    var copy = self
    copy.space = try space.fork()
    return copy
  }
}

let saved = try machine.snapshot()
_ = try machine.space.writtenPages(in: .wholeSpace, resetting: true)

print("stopped:", machine.run())
print("msync answered", machine.registers[0])

/// What the machine has counted: in the scores, in the file behind them, and on its stack.
func report(_ machine: Machine) throws {
  var written: UInt64 = 0
  _ = try withUnsafeMutableBytes(of: &written) {
    try file.read(fromAbsoluteOffset: 0, into: $0)
  }
  let table = try machine.space.load(UInt64.self, at: Layout.scores)
  let stack = try machine.space.load(UInt64.self, at: Layout.stack.end - 8)
  print("scores \(table), file \(written), stack \(stack)")
}
try report(machine)

for range in try machine.space.writtenPages(in: .wholeSpace) { print("written:", range) }

machine = try saved.snapshot()
try report(machine)
print("stopped:", machine.run())
try report(machine)

machine = try saved.snapshot()
try machine.space.protect(at: Layout.stack.end - 4096, length: 4096, .read)
if case .fault(let fault) = machine.run(), fault.reason == .notPermitted {
  print("watched:", fault)
  try machine.space.protect(at: fault.address.pageStart, length: 4096, [.read, .write])
}
print("stopped:", machine.run())

try scores.truncate(to: 0)
machine = try saved.snapshot()
print("stopped:", machine.run())
