//! The smallest program of each architecture: it exits with a code that says it ran.

use crosskit_platforms::{Architecture, Endian};

/// A program that ran exits with this plus the level of its instruction set: 65 for the plain architecture, 66 where an
/// amd64 program found the x86-64-v2 instructions.
pub const EXIT_BASE: i32 = 64;

/// Address that the program is loaded at, and alignment of its segment: the largest page that any of these
/// architectures uses (64 KiB) divides it.
const ADDRESS: u64 = 0x40_0000;
const ALIGN: u64 = 0x1_0000;

/// Machine code of `exit(65)`.
enum Code {
    /// As it stands in memory.
    Bytes(&'static [u8]),
    /// 32-bit instructions, stored in the architecture's byte order.
    Words(&'static [u32]),
}

/// CPUID leaf 1 ECX bits of x86-64-v2: SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT.
const V2: [u8; 4] = ((1u32 << 0) | (1 << 9) | (1 << 13) | (1 << 19) | (1 << 20) | (1 << 23)).to_le_bytes();

/// amd64 looks at the processor it is on: cpuid leaf 1, exit(66) if all of `V2` is there, else exit(65).
const AMD64: [u8; 38] = [
    0xb8, 1, 0, 0, 0, // mov eax, 1
    0x0f, 0xa2, // cpuid
    0x81, 0xe1, V2[0], V2[1], V2[2], V2[3], // and ecx, V2
    0x81, 0xf9, V2[0], V2[1], V2[2], V2[3], // cmp ecx, V2
    0xbf, 65, 0, 0, 0, // mov edi, 65
    0x75, 5, // jne over the next
    0xbf, 66, 0, 0, 0, // mov edi, 66
    0xb8, 60, 0, 0, 0, // mov eax, SYS_exit
    0x0f, 0x05, // syscall
];

/// Code and `e_flags` by OCI name. System call numbers are those of Linux on each architecture.
fn code(name: &str) -> Option<(Code, u32)> {
    Some(match name {
        "amd64" => (Code::Bytes(&AMD64), 0),
        // mov eax, 1; mov ebx, 65; int 0x80
        "386" => (Code::Bytes(&[0xb8, 1, 0, 0, 0, 0xbb, 65, 0, 0, 0, 0xcd, 0x80]), 0),
        // mov x0, 65; mov x8, 93; svc 0
        "arm64" => (Code::Words(&[0xd280_0820, 0xd280_0ba8, 0xd400_0001]), 0),
        // mov r0, 65; mov r7, 1; svc 0 (EABI version 5)
        "arm" => (Code::Words(&[0xe3a0_0041, 0xe3a0_7001, 0xef00_0000]), 0x0500_0000),
        // li a0, 65; li a7, 93; ecall
        "riscv64" => (Code::Words(&[0x0410_0513, 0x05d0_0893, 0x0000_0073]), 0),
        // ori a0, zero, 65; ori a7, zero, 93; syscall 0 (object file ABI 1, double floats)
        "loong64" => (Code::Words(&[0x0381_0404, 0x0381_740b, 0x002b_0000]), 0x43),
        // li r0, 1; li r3, 65; sc (ELF ABI 2: the entry is code, not a descriptor, in either byte order)
        "ppc64le" | "ppc64" => (Code::Words(&[0x3800_0001, 0x3860_0041, 0x4400_0002]), 2),
        // lghi %r2, 65; svc 1
        "s390x" => (Code::Bytes(&[0xa7, 0x29, 0x00, 0x41, 0x0a, 0x01]), 0),
        // li a0, 65; li v0, 5058; syscall (MIPS64)
        "mips64" | "mips64le" => (Code::Words(&[0x2404_0041, 0x2402_13c2, 0x0000_000c]), 0x6000_0000),
        // mov 65, %o0; mov 1, %g1; ta 0x6d
        "sparc64" => (Code::Words(&[0x9010_2041, 0x8210_2001, 0x91d0_206d]), 0),
        // lda $16, 65($31); lda $0, 1($31); callsys
        "alpha" => (Code::Words(&[0x221f_0041, 0x201f_0001, 0x0000_0083]), 0),
        // moveq #1, %d0; moveq #65, %d1; trap #0
        "m68k" => (Code::Bytes(&[0x70, 0x01, 0x72, 0x41, 0x4e, 0x40]), 0),
        "ppc" => (Code::Words(&[0x3800_0001, 0x3860_0041, 0x4400_0002]), 0),
        // li a0, 65; li v0, 4001; syscall (O32, MIPS32)
        "mips" | "mipsle" => (Code::Words(&[0x2404_0041, 0x2402_0fa1, 0x0000_000c]), 0x5000_1000),
        "riscv32" => (Code::Words(&[0x0410_0513, 0x05d0_0893, 0x0000_0073]), 0),
        // ldi 65, %r26; ble 0x100(%sr2, %r0); ldi 1, %r20 in its delay slot
        "hppa" => (Code::Words(&[0x341a_0082, 0xe400_8200, 0x3414_0002]), 0),
        // mov #65, r4; mov #1, r3; trapa #0x11
        "sh4" => (Code::Bytes(&[0x41, 0xe4, 0x01, 0xe3, 0x11, 0xc3]), 9),
        // l.ori r3, r0, 65; l.ori r11, r0, 93; l.sys 1
        "or1k" => (Code::Words(&[0xa860_0041, 0xa960_005d, 0x2000_0001]), 0),
        // addik r12, r0, 1; addik r5, r0, 65; brki r14, 8
        "microblaze" => (Code::Words(&[0x3180_0001, 0x30a0_0041, 0xb9cc_0008]), 0),
        _ => return None,
    })
}

/// Machine code that loads the first character of `argv[0]` and exits with it, by OCI name. The arguments lie above their
/// number, which the stack pointer points at; hppa has their address in a register.
fn code_of_argv0(name: &str) -> Option<Code> {
    Some(match name {
        // mov rdi, [rsp+8]; movzx edi, byte [rdi]; mov eax, 60; syscall
        "amd64" => Code::Bytes(&[0x48, 0x8b, 0x7c, 0x24, 8, 0x0f, 0xb6, 0x3f, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]),
        // mov ebx, [esp+4]; movzx ebx, byte [ebx]; mov eax, 1; int 0x80
        "386" => Code::Bytes(&[0x8b, 0x5c, 0x24, 4, 0x0f, 0xb6, 0x1b, 0xb8, 1, 0, 0, 0, 0xcd, 0x80]),
        // ldr x0, [sp, 8]; ldrb w0, [x0]; …
        "arm64" => Code::Words(&[0xf940_07e0, 0x3940_0000, 0xd280_0ba8, 0xd400_0001]),
        // ldr r0, [sp, 4]; ldrb r0, [r0]; …
        "arm" => Code::Words(&[0xe59d_0004, 0xe5d0_0000, 0xe3a0_7001, 0xef00_0000]),
        // ld a0, 8(sp); lbu a0, 0(a0); …
        "riscv64" => Code::Words(&[0x0081_3503, 0x0005_4503, 0x05d0_0893, 0x0000_0073]),
        // lw a0, 4(sp); lbu a0, 0(a0); …
        "riscv32" => Code::Words(&[0x0041_2503, 0x0005_4503, 0x05d0_0893, 0x0000_0073]),
        // ld.d a0, sp, 8; ld.bu a0, a0, 0; …
        "loong64" => Code::Words(&[0x28c0_2064, 0x2a00_0084, 0x0381_740b, 0x002b_0000]),
        // ld r3, 8(r1); lbz r3, 0(r3); …
        "ppc64le" | "ppc64" => Code::Words(&[0xe861_0008, 0x8863_0000, 0x3800_0001, 0x4400_0002]),
        // lwz r3, 4(r1); lbz r3, 0(r3); …
        "ppc" => Code::Words(&[0x8061_0004, 0x8863_0000, 0x3800_0001, 0x4400_0002]),
        // lg %r2, 8(%r15); llgc %r2, 0(%r2); svc 1
        "s390x" => {
            Code::Bytes(&[0xe3, 0x20, 0xf0, 0x08, 0x00, 0x04, 0xe3, 0x20, 0x20, 0x00, 0x00, 0x90, 0x0a, 0x01])
        }
        // ld a0, 8(sp); lbu a0, 0(a0); …
        "mips64" | "mips64le" => Code::Words(&[0xdfa4_0008, 0x9084_0000, 0x2402_13c2, 0x0000_000c]),
        // lw a0, 4(sp); lbu a0, 0(a0); …
        "mips" | "mipsle" => Code::Words(&[0x8fa4_0004, 0x9084_0000, 0x2402_0fa1, 0x0000_000c]),
        // ldx [%sp + 2047 + 17*8], %o0; ldub [%o0], %o0; …
        "sparc64" => Code::Words(&[0xd05b_a887, 0xd00a_2000, 0x8210_2001, 0x91d0_206d]),
        // ldq $16, 8($30); ldbu $16, 0($16); …
        "alpha" => Code::Words(&[0xa61e_0008, 0x2a10_0000, 0x201f_0001, 0x0000_0083]),
        // move.l (4, %sp), %a0; clr.l %d1; move.b (%a0), %d1; …
        "m68k" => Code::Bytes(&[0x20, 0x6f, 0x00, 0x04, 0x42, 0x81, 0x12, 0x10, 0x70, 0x01, 0x4e, 0x40]),
        // ldw 0(%r24), %r26; ldb 0(%r26), %r26; …
        "hppa" => Code::Words(&[0x4b1a_0000, 0x435a_0000, 0xe400_8200, 0x3414_0002]),
        // mov.l @(4, r15), r4; mov.b @r4, r4; extu.b r4, r4; …
        "sh4" => Code::Bytes(&[0xf1, 0x54, 0x40, 0x64, 0x4c, 0x64, 0x01, 0xe3, 0x11, 0xc3]),
        // l.lwz r3, 4(r1); l.lbz r3, 0(r3); …
        "or1k" => Code::Words(&[0x8461_0004, 0x8c63_0000, 0xa960_005d, 0x2000_0001]),
        // lwi r5, r1, 4; lbui r5, r5, 0; …
        "microblaze" => Code::Words(&[0xe8a1_0004, 0xe0a5_0000, 0x3180_0001, 0xb9cc_0008]),
        _ => return None,
    })
}

/// A static ELF program for Linux that exits at once with [`EXIT_BASE`] plus the level of its instruction set. None for
/// an architecture whose instructions are not known here.
pub fn program(architecture: &Architecture) -> Option<Vec<u8>> {
    let (code, flags) = code(&architecture.name)?;
    Some(elf(architecture, code, flags))
}

/// A static ELF program for Linux that exits at once with the first character of the name it was called by.
pub fn program_of_argv0(architecture: &Architecture) -> Option<Vec<u8>> {
    let (_, flags) = code(&architecture.name)?;
    Some(elf(architecture, code_of_argv0(&architecture.name)?, flags))
}

fn elf(architecture: &Architecture, code: Code, flags: u32) -> Vec<u8> {
    let code: Vec<u8> = match (code, architecture.endian) {
        (Code::Bytes(bytes), _) => bytes.to_vec(),
        (Code::Words(words), Endian::Little) => words.iter().flat_map(|word| word.to_le_bytes()).collect(),
        (Code::Words(words), Endian::Big) => words.iter().flat_map(|word| word.to_be_bytes()).collect(),
    };
    let wide = architecture.bits == 64;
    // Sizes of the file header and of the one program header in each class (System V ABI, chapter 4 and 5).
    let (header, segment): (u16, u16) = if wide { (64, 56) } else { (52, 32) };
    let start = u64::from(header + segment);
    let size = start + code.len() as u64;

    let mut elf = Elf { big: architecture.endian == Endian::Big, wide, bytes: Vec::with_capacity(256) };
    elf.bytes.extend_from_slice(&crate::magic(architecture).bytes[..16]);
    elf.half(2); // e_type: ET_EXEC
    elf.half(architecture.machine);
    elf.word(1); // e_version
    elf.address(ADDRESS + start); // e_entry
    elf.address(u64::from(header)); // e_phoff
    elf.address(0); // e_shoff
    elf.word(flags);
    for value in [header, segment, 1, 0, 0, 0] {
        elf.half(value); // e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
    }
    let read_and_execute = 5;
    elf.word(1); // p_type: PT_LOAD
    if wide {
        elf.word(read_and_execute);
    }
    for value in [0, ADDRESS, ADDRESS, size, size] {
        elf.address(value); // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz
    }
    if !wide {
        elf.word(read_and_execute);
    }
    elf.address(ALIGN);
    elf.bytes.extend_from_slice(&code);
    elf.bytes
}

/// Writes numbers the way an ELF file of one class and byte order has them.
struct Elf {
    big: bool,
    wide: bool,
    bytes: Vec<u8>,
}

impl Elf {
    fn half(&mut self, value: u16) {
        self.bytes.extend_from_slice(&if self.big { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn word(&mut self, value: u32) {
        self.bytes.extend_from_slice(&if self.big { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn address(&mut self, value: u64) {
        if self.wide {
            self.bytes.extend_from_slice(&if self.big { value.to_be_bytes() } else { value.to_le_bytes() });
        } else {
            self.word(value as u32); // every address here is below 8 MiB
        }
    }
}
