//! Compilers and make.

use crate::need::{has, last, place, works_unhindered};
use security_v2_host::users;

#[test]
fn a_c_compiler_builds_and_the_program_runs() {
    if !has(&["cc"]) {
        return;
    }
    for user in users() {
        let home = place(user);
        for place in ["/tmp", "/state", "."] {
            let done = works_unhindered(
                &home,
                &format!(
                    r#"cd {place}
                    printf '#include <stdio.h>\n#include <pthread.h>\nstatic void *f(void *a) {{ puts(a); return 0; }}\nint main(void) {{ pthread_t t; pthread_create(&t, 0, f, "hello"); return pthread_join(t, 0); }}\n' > hello.c
                    cc -O2 -g -pthread -o hello hello.c; ./hello; rm hello"#
                ),
            );
            assert_eq!(last(&done), "hello", "{done}");
        }
    }
}

#[test]
fn a_parallel_make_of_sixty_files_works_and_does_nothing_the_second_time() {
    if !has(&["cc", "make", "ar"]) {
        return;
    }
    for user in users() {
        let home = place(user);
        for place in ["/tmp", "."] {
            let done = works_unhindered(
                &home,
                &format!(
                    r#"
                    mkdir {place}/p; cd {place}/p
                    for i in $(seq 60); do echo "int f$i(void) {{ return $i; }}" > f$i.c; done
                    (for i in $(seq 60); do echo "int f$i(void);"; done; echo '#include <stdio.h>'
                     echo 'int main(void) {{ printf("%d\n", f1() + f60()); }}') > main.c
                    cat > Makefile <<'END'
OBJECTS := $(patsubst %.c,%.o,$(wildcard f*.c))
all: main
lib.a: $(OBJECTS)
	@ar rcs $@ $^
main: main.c lib.a
	@$(CC) -o $@ main.c lib.a
%.o: %.c
	@$(CC) -O1 -MD -c -o $@ $<
END
                    make -j8; ./main; make -q; touch f7.c; ! make -q; make -j8 --output-sync > /dev/null; make -q; cd ..; rm -r p; echo end
                    "#
                ),
            );
            assert_eq!(done.out(), "61\nend\n", "{done}");
        }
    }
}
